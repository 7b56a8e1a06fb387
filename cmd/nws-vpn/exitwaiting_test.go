package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// reload has the exit take its configuration, and holds what becomes of it.
func (e *testExit) reload(changed, waiting string) (report reloadReport) {
	e.t.Helper()
	b, err := e.ask("POST", "/reload")
	if err == nil {
		err = json.Unmarshal(b, &report)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	if fmt.Sprint(report.Changed) != changed || fmt.Sprint(report.Waiting) != waiting {
		e.t.Errorf("reloaded: %+v, want %s, %s", report, changed, waiting)
	}
	return report
}

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
		report := e.reload(test.changed, test.waiting)
		if said := report.String() + "\n"; !strings.Contains(said, test.says) || strings.Count(said, "\n") != 1 {
			t.Errorf("reload %d says %q, want %q", i, said, test.says)
		}
	}
	if out := e.mustOperate("reload"); out != "reloaded: nothing has changed\n" {
		t.Errorf("the command says %q", out)
	}
}

// TestReloadOfTheRelayWithin: what a relay of its own takes while it runs, the one
// within an exit takes as well, and undoes if something else is wrong.
func TestReloadOfTheRelayWithin(t *testing.T) {
	e := newTestExit(t, "")
	e.flags.relays, e.flags.relayListen = nil, "127.0.0.1:0"
	e.write("[relay]\nname = \"first\"\n")
	url := strings.TrimPrefix(e.start(e.flags, "ready on ").said, "ready on ")
	for i, test := range []struct{ text, name, changed, waiting string }{
		{"[relay]\nname = \"second\"\n", "second", "[relay]", "[]"},
		{"[relay]\nname = \"second\"\nlisten = \"127.0.0.1:9\"\nlog_events = true\n", "second", "[]", "[relay.log_events]"},
		{"max_clients = 3\n[relay]\nname = \"third\"\nmin_pow = 1\nlog_events = true\n", "third", "[limits relay]", "[relay.log_events]"},
	} {
		e.write(test.text)
		e.reload(test.changed, test.waiting)
		if got := described(t, url, nil).Name; got != test.name {
			t.Errorf("after reload %d the relay is named %q", i, got)
		}
	}
	e.write("[relay]\nname = \"fourth\"\nmembers = [\"nobody\"]\n")
	if _, err := e.ask("POST", "/reload"); err == nil || described(t, url, nil).Name != "third" {
		t.Errorf("a mistake is taken: %v", err)
	}
}
