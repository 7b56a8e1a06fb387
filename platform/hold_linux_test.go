package platform

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestHold is lockdown: after the process, and after its successor, the machine
// stays closed until somebody unlocks it.
//
// leak check 28: closed beyond the process
func TestHold(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	warmNeighbours(t, wire)
	before := snapshot(t)
	dir := stateDir(t)
	isClosed := func(label string) {
		t.Helper()
		seen := sendAll(t, wire, label, func(p probe, _ string, err error) {
			if err == nil {
				t.Errorf("%s: %s: not refused", label, p.name)
			}
		})
		if contains(seen, "probe "+label) {
			t.Errorf("%s: a probe is on the wire", label)
		}
		if len(bypassAll(t, wire, label, func(bypass, error) {})) != 0 {
			t.Errorf("%s: a bypass is on the wire", label)
		}
	}
	cfg := filterConfig()
	cfg.Hold = true
	tun := openTUN(t, "nws0")
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(cfg))
	must(t, c.Close())
	tun.Close()
	isClosed("down")
	if b, err := os.ReadFile("/etc/resolv.conf"); err != nil || !strings.Contains(string(b), "192.0.2.53") {
		t.Errorf("the resolver's file is %q, %v", b, err)
	}
	held := snapshot(t)
	for range 2 {
		must(t, CleanUp(dir, testLog(t)))
		isClosed("cleaned up")
	}
	if d := diff(held, snapshot(t)); d != "" {
		t.Errorf("CleanUp made a difference:\n%s", d)
	}
	// Another process takes over, is killed when up, and is cleaned up after.
	tun = openTUN(t, "nws0")
	c, err = New(dir, Options{Log: testLog(t)})
	must(t, err)
	isClosed("taken over")
	must(t, c.Set(cfg))
	checkUp(t)
	must(t, c.(*configurator).lock.Close()) // as the kernel does for one that is killed
	tun.Close()
	must(t, CleanUp(dir, testLog(t)))
	isClosed("cleaned up after another")
	must(t, Unlock(dir, testLog(t)))
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("Unlock left a difference:\n%s", d)
	}
	must(t, Unlock(dir, testLog(t)))
	if _, err := os.Stat(dir + "/journal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Unlock left the journal: %v", err)
	}
}

// TestHoldEnds takes Hold back by another Set.
func TestHoldEnds(t *testing.T) {
	enterNamespaces(t)
	before := snapshot(t)
	dir := stateDir(t)
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(Config{Filter: FilterOn, Hold: true}))
	must(t, c.Set(Config{Filter: FilterOn}))
	j, err := readJournal(dir)
	must(t, err)
	if j.Held != nil {
		t.Error("the journal still holds")
	}
	must(t, c.Set(Config{Filter: FilterOn, Hold: true}))
	j, err = readJournal(dir)
	must(t, err)
	if j.Held == nil {
		t.Error("the journal does not hold")
	}
	must(t, c.Set(Config{}))
	must(t, c.Close())
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("a difference is left:\n%s", d)
	}
}

// TestPreviewSaysWhatSetDoes compares a dry run with the trace of the real one.
func TestPreviewSaysWhatSetDoes(t *testing.T) {
	enterNamespaces(t)
	before := snapshot(t)
	cfg := filterConfig()
	cfg.AllowLAN, cfg.RefuseInbound, cfg.Exclude = true, true, prefixes("192.0.2.0/24")
	absent, _, err := Preview(cfg)
	must(t, err)
	if want := "ip tuntap add dev nws0 mode tun"; len(absent) < 40 || absent[0] != want {
		t.Errorf("%d changes, the first %q, want %q", len(absent), absent[:1], want)
	}
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("a dry run made a difference:\n%s", d)
	}
	openTUN(t, "nws0")
	announced, notes, err := Preview(cfg)
	must(t, err)
	if len(notes) != 0 || !slices.Equal(announced, absent[1:]) {
		t.Errorf("notes %q; with the device, the changes differ:\n%s", notes, diff(strings.Join(absent, "\n"), strings.Join(announced, "\n")))
	}
	var made []string
	c, err := New(stateDir(t), Options{Trace: func(change string) { made = append(made, change) }})
	must(t, err)
	must(t, c.Set(cfg))
	if !slices.Equal(made, announced) {
		t.Errorf("made and announced differ:\n%s", diff(strings.Join(announced, "\n"), strings.Join(made, "\n")))
	}
	made = nil
	must(t, c.Close())
	if len(made) == 0 || made[0] != "undo: replace the resolver's file" {
		t.Errorf("undone: %q", made)
	}
	if _, _, err := Preview(Config{Device: "a b"}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a Config that is none: %v", err)
	}
}

// TestNoWindowBetweenStates watches the wire at every step from one state to
// another.
func TestNoWindowBetweenStates(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	warmNeighbours(t, wire)
	openTUN(t, "nws0")
	closed, watching := 0, false
	c, err := open(stateDir(t), testLog(t), testEnv(func(point string) error {
		if watching {
			closed++
			label := fmt.Sprintf("%d %s", closed, point)
			if seen := sendAll(t, wire, label, func(probe, string, error) {}); contains(seen, "probe "+label) {
				t.Errorf("at %q a probe is on the wire", point)
			}
			if seen := bypassAll(t, wire, label, func(bypass, error) {}); len(seen) != 0 {
				t.Errorf("at %q on the wire: %v", point, seen)
			}
		}
		return nil
	}))
	must(t, err)
	none := filterConfig()
	none.Device = ""
	other := filterConfig()
	other.ForwardBlock, other.RefuseInbound, other.MTU, other.Table, other.Addresses = true, true, 1300, 4711, other.Addresses[:1]
	must(t, c.Set(none))
	watching = true
	for _, cfg := range []Config{filterConfig(), none, other, filterConfig(), none} {
		must(t, c.Set(cfg))
	}
	if closed < 40 {
		t.Errorf("only %d points were watched", closed)
	}
	watching = false
	must(t, c.Close())
}
