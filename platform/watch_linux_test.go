package platform

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// startWatch runs a watcher in the test's network namespace. What it saw at each
// call comes on the channel; stop ends it and returns its error.
func startWatch(t *testing.T) (calls chan string, stop func() error) {
	t.Helper()
	ns, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer ns.Close()
	ctx, cancel := context.WithCancel(t.Context())
	calls = make(chan string, 100)
	ready := make(chan error, 1)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the namespace is the thread's, which ends here
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		var w *watcher
		if err == nil {
			w, err = newWatcher()
		}
		if ready <- err; err != nil {
			return
		}
		done <- w.run(ctx, func() { calls <- w.last })
	}()
	must(t, <-ready)
	return calls, func() error {
		cancel()
		return <-done
	}
}

func TestWatchReportsUplinkChanges(t *testing.T) {
	far := enterNamespaces(t)
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	wan, err := far.handle.LinkByName("wan")
	must(t, err)
	extra, err := netlink.ParseAddr("192.0.2.3/24")
	must(t, err)
	calls, stop := startWatch(t)
	has := func(text string, want bool) func(string) bool {
		return func(saw string) bool { return strings.Contains(saw, text) == want }
	}
	const upAndRunning = " 0x10041"
	for _, change := range []struct {
		name string
		do   func() error
		seen func(saw string) bool
	}{
		{"an address comes", func() error { return netlink.AddrAdd(eth0, extra) }, has("192.0.2.3/24", true)},
		{"an address goes", func() error { return netlink.AddrDel(eth0, extra) }, has("192.0.2.3/24", false)},
		{"the cable is pulled", func() error { return far.handle.LinkSetDown(wan) }, has(upAndRunning, false)},
		{"the cable is back", func() error { return far.handle.LinkSetUp(wan) }, has(upAndRunning, true)},
		{"the uplink goes down", func() error { return netlink.LinkSetDown(eth0) }, has("route 0.0.0.0/0", false)},
		{"the uplink comes up", func() error { return netlink.LinkSetUp(eth0) }, has(upAndRunning, true)},
		{"a default route comes", func() error { addRoute(t, "default", "192.0.2.1"); return nil }, has("route 0.0.0.0/0", true)},
	} {
		must(t, change.do())
		late := time.After(20 * time.Second)
		// One change may be several for the kernel, and so several calls.
		for reported := false; !reported; {
			select {
			case saw := <-calls:
				reported = change.seen(saw)
			case <-late:
				t.Fatalf("%s: not reported", change.name)
			}
		}
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("the watcher ends with %v", err)
	}
}

func TestWatchIgnoresOurOwnAndOthersInside(t *testing.T) {
	enterNamespaces(t)
	calls, stop := startWatch(t)
	// A tunnel up and down, and an interface that leads nowhere.
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	must(t, c.Close())
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth7"}, PeerName: "veth8"}))
	linkUp(t, nil, "veth7")
	// Then one change that counts: it is the only one reported.
	addRoute(t, "198.51.100.0/24", "192.0.2.1")
	<-calls
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("the watcher ends with %v", err)
	}
	if len(calls) != 0 {
		t.Errorf("%d changes reported that are none", len(calls))
	}
}
