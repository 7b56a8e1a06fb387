package main

import (
	"bytes"
	"strings"
	"testing"
)

const (
	passes = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"pass","Package":"p","Elapsed":0.2}
`
	skips = `{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: needs root: namespaces\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
`
	fails = `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:1: it is wrong\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p"}
`
	leaks = `{"Action":"output","Package":"q","Output":"goleak: found a goroutine\n"}
{"Action":"fail","Package":"q"}
`
	builds = `{"ImportPath":"r","Action":"build-output","Output":"r.go:1: syntax error\n"}
{"ImportPath":"r","Action":"build-fail"}
{"Action":"fail","Package":"r"}
`
	panics = `{"Action":"output","Package":"u","Test":"TestD","Output":"panic: no way\n"}
{"Action":"fail","Package":"u"}
`
	noTests = `{"Action":"skip","Package":"s"}
`
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name, events   string
		ok, okIfStrict bool
		says           string
	}{
		{"pass", passes, true, true, "1 tests passed, 0 failed, 0 skipped"},
		{"skip", passes + skips, true, false, "skip  p TestB: b_test.go:7: needs root: namespaces"},
		{"fail", passes + fails, false, false, "it is wrong"},
		{"leak", passes + leaks, false, false, "goleak: found a goroutine"},
		{"panic", passes + panics, false, false, "panic: no way"},
		{"build", passes + builds, false, false, "r.go:1: syntax error"},
		{"nothing", noTests, false, false, "0 tests passed"},
		{"no tests in a package", passes + noTests, true, true, "1 tests passed, 0 failed, 0 skipped"},
		{"foreign line", "warning\n" + passes, true, true, "warning"},
	} {
		var out bytes.Buffer
		s := newSummary(&out)
		if err := s.read(strings.NewReader(c.events)); err != nil {
			t.Fatal(err)
		}
		if ok := s.finish(false); ok != c.ok {
			t.Errorf("%s: ok is %v", c.name, ok)
		}
		if ok := s.finish(true); ok != c.okIfStrict {
			t.Errorf("%s: ok is %v when strict", c.name, ok)
		}
		if !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %q lacks %q", c.name, out.String(), c.says)
		}
	}
}
