package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A reload says what holds now and what does not before the next start, compared
// with what the process was started with.
func TestReloadTellsWhatWaits(t *testing.T) {
	e := newTestExit(t, "")
	e.newKey("blog.key")
	e.write("names.blog = { key_file = \"DIR/blog.key\" }\n")
	e.start(e.flags, "ready on "+e.relay+" (blog)")
	for i, test := range []struct{ text, changed, waiting, says string }{
		{"max_flows = 100\nmax_sessions = 9\nquota_day = 1\n", "[limits services]", "[exit.max_sessions exit.max_flows exit.names]", "exit.max_flows"},
		{"max_flows = 100\nmax_sessions = 9\nquota_day = 1\n", "[]", "[exit.max_sessions exit.max_flows exit.names]", "nothing has changed before the next start"},
		{"max_flows = 100\nnames.blog = { key_file = \"DIR/blog.key\" }\n", "[limits services]", "[exit.max_flows]", "reloaded: limits, services; from the next start on"},
		{"names.blog = { key_file = \"DIR/blog.key\", services = { 80 = \"127.0.0.1:8\" } }\n", "[services]", "[]", "reloaded: services\n"},
		{"names.blog = { key_file = \"DIR/blog.key\" }\n", "[services]", "[]", "reloaded: services\n"},
		{"names.blog = { key_file = \"DIR/blog.key\" }\n", "[]", "[]", "reloaded: nothing has changed\n"},
	} {
		e.write(test.text)
		b, err := e.ask("POST", "/reload")
		var report reloadReport
		if err == nil {
			err = json.Unmarshal(b, &report)
		}
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(report.Changed) != test.changed || fmt.Sprint(report.Waiting) != test.waiting {
			t.Errorf("reload %d: %+v, want %s, %s", i, report, test.changed, test.waiting)
		}
		if said := report.String() + "\n"; !strings.Contains(said, test.says) || strings.Count(said, "\n") != 1 {
			t.Errorf("reload %d says %q, want %q", i, said, test.says)
		}
	}
	if out := e.mustOperate("reload"); out != "reloaded: nothing has changed\n" {
		t.Errorf("the command says %q", out)
	}
}
