package demo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	if !r.step("first", func() (string, error) { return "well", nil }) {
		t.Error("a good step failed")
	}
	if err := r.verdict(time.Second); err != nil {
		t.Error(err)
	}
	if r.step("second", func() (string, error) { return "", errors.New("one\ntwo") }) {
		t.Error("a bad step did not fail")
	}
	if err := r.verdict(time.Second); err == nil || !strings.Contains(err.Error(), "second") || strings.Contains(err.Error(), "first") {
		t.Errorf("the verdict is %v", err)
	}
	if got := out.String(); !strings.Contains(got, "  FAIL  second\n        one\n        two\n") {
		t.Errorf("got %s", got)
	}
}

func TestLogShowsTheEnd(t *testing.T) {
	var out bytes.Buffer
	newReport(&out).log("it", strings.Repeat("early\n", 60)+"last\n")
	if got := out.String(); !strings.Contains(got, "(21 lines before these)") || !strings.HasSuffix(got, "last\n") {
		t.Errorf("got %s", got)
	}
}

func TestRelayView(t *testing.T) {
	v := newRelayView("secret.example")
	for _, line := range []string{
		"relay listening ws://127.0.0.1:7777",
		"event kind=28333 author=aa recipient=bb size=600",
		"event kind=28333 author=aa recipient=bb size=65000",
		"event kind=28333 author=bb recipient=aa size=700",
		"event kind=x author=bb recipient=aa size=700",
		"event kind=1 author=bb recipient=aa",
		"for secret.example",
	} {
		v.add(line)
	}
	rows := v.rows()
	if len(rows) != 2 || rows[0].author != "aa" || rows[0].events != 2 || rows[0].bytes != 65600 || rows[0].largest != 65000 || v.events != 3 {
		t.Errorf("got %+v", rows)
	}
	if len(v.telling) != 1 || v.telling[0] != "for secret.example" {
		t.Errorf("telling lines: %q", v.telling)
	}
}

func FuzzParseEventLine(f *testing.F) {
	f.Add("event kind=28333 author=aa recipient=bb size=600")
	f.Add("kind= author== recipient=\x00 size=-1")
	f.Fuzz(func(t *testing.T, line string) {
		p, size, ok := parseEventLine(line)
		if !ok {
			return
		}
		again := fmt.Sprintf("kind=%d author=%s recipient=%s size=%d", p.kind, p.author, p.recipient, size)
		if p2, size2, ok := parseEventLine(again); !ok || p2 != p || size2 != size {
			t.Errorf("%q is read as %q", line, again)
		}
	})
}

func TestShorten(t *testing.T) {
	for _, word := range []string{"", "short", strings.Repeat("x", 16), "npub1" + strings.Repeat("q", 58)} {
		got := shorten(word, 16)
		if n := len([]rune(got)); n > 16 || len(word) <= 16 && got != word {
			t.Errorf("%q becomes %q", word, got)
		}
	}
}

func TestProbeRefusesWrongArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"http"}, {"dns", "x"}, {"tcp", "x"}, {"ftp", "x"}, {"http", "-z", "x"}, {"dns", "x.example", "MX"}} {
		var errOut bytes.Buffer
		if code := Probe(t.Context(), args, strings.NewReader(""), &bytes.Buffer{}, &errOut); code == 0 || errOut.Len() == 0 {
			t.Errorf("%q: code %d, %q", args, code, errOut.String())
		}
	}
}
