package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestTheListIsUpToDate(t *testing.T) {
	want, err := document(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/leak-tests.md")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/leak-tests.md is not what the tests say (%v): run make leak-doc", err)
	}
}

func TestMarksAreFound(t *testing.T) {
	source := `package x
// TestA is one.
//
// leak check 7: by a mark
func TestA(t *testing.T) {
	tun.check(8, "by a call: "+c.what, func() {})
	check(9)
}
// leak check 9 is open: no such kernel
`
	text, err := document(fstest.MapFS{"a/x_test.go": {Data: []byte(source)}, "a/x.go": {Data: []byte("no Go")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"7. **A forged mark**: tested\n\n- by a mark (`a TestA`)",
		"8. **Foreign rules before ours, a second VPN**: tested\n\n- by a call: … (`a TestA`)",
		"9. **Default routes, metrics, names and uplinks change**: not tested\n\n- open: no such kernel",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	for name, bad := range map[string]string{
		"no such check": "package x\n// leak check 77: none\nfunc TestA(t *testing.T) {}\n",
		"no test":       "package x\n// leak check 7: none\nvar a = 1\n",
		"not Go":        "package",
	} {
		if _, err := document(fstest.MapFS{"x_test.go": {Data: []byte(bad)}}); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}
