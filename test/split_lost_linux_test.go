package test

import (
	"sync"
	"testing"
)

// What leaves outside the tunnel while there is no way to the exit: not what is
// told by its name, as long as there is no tunnel to tell it; and when a way was
// lost, what leaves while there is one.
//
// leak check 30: with split tunnelling, before there is an exit and when it is lost
func TestSplitWithoutTheExit(t *testing.T) {
	tun := splitWorld(t)
	relay := tun.startRelay()
	type wants map[string]string // by host; "" is nobody
	for _, c := range []struct {
		what          string
		args          []string
		before, after wants
	}{
		{"excluded", []string{"--exclude", "45.80.1.0/24", "--exclude-domain", "direct.example"},
			wants{publicA: "", publicB: asClient, directName: ""},
			wants{publicA: "", publicB: asClient, directName: asClient}},
		{"networks included", []string{"--include", "45.80.0.0/24"},
			wants{publicA: "", publicB: asClient},
			wants{publicA: "", publicB: asClient}},
		{"names included", []string{"--include-domain", "other.example"},
			wants{publicB: "", directName: "", otherName: ""},
			wants{publicB: asClient, directName: asClient, otherName: ""}},
	} {
		t.Run(c.what, func(t *testing.T) {
			tun := tun.with(t)
			up := tun.begin(append(c.args, "--retry")...)
			tun.awaitLine(up, "no session with the exit")
			check := func(when string, want wants) {
				var asking sync.WaitGroup // what is refused takes a while
				for host, who := range want {
					asking.Go(func() { tun.sees("", "http://"+host+"/", who) })
				}
				asking.Wait()
				if state := tun.status()["state"]; state != "connecting" {
					t.Errorf("%s, the state is %s", when, state)
				}
			}
			check("before the exit was reached", c.before)
			exit := tun.startExit()
			tun.awaitState("connected")
			tun.kill(relay)
			tun.kill(exit)
			tun.awaitState("connecting")
			check("when the exit was lost", c.after)
			tun.takeDown(up)
			relay = tun.startRelay()
		})
	}
}
