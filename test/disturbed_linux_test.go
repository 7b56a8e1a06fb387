package test

import (
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// leak check 22: the device gone
func TestLifeWithoutItsDevice(t *testing.T) {
	tun := connected(t)
	tun.closed("after the device was removed", func() {
		for range 2 {
			since := tun.status()["since"]
			tun.run("ip", "link", "del", "nws0")
			tun.probe(probeMark)
			for s := tun.status(); s["since"] == since || s["state"] != "connected"; s = tun.status() {
				if tun.ctx.Err() != nil {
					t.Fatalf("the tunnel does not come back: %v", s)
				}
			}
		}
	})
	tun.recovers()
}

func TestLifeWithItsRulesRemoved(t *testing.T) {
	tun := connected(t)
	c := tun.dial(world.WebIP, world.PortEcho)
	defer c.Close()
	tun.closed("after the rules were removed", func() {
		for _, family := range []string{"-4", "-6"} {
			tun.run("ip", family, "rule", "del", "pref", "5620")
		}
		for tun.status()["repairs"].(float64) < 1 {
			if tun.ctx.Err() != nil {
				t.Fatalf("status does not say that anything was put back: %v", tun.status())
			}
		}
	})
	if text := tun.nwsEnds(true, "status"); !strings.Contains(text, "put back") {
		t.Errorf("status says\n%s", text)
	}
	// What was open before is open still.
	text := make([]byte, 5)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, text); err != nil || string(text) != "hello" {
		t.Errorf("the open connection says %q, %v", text, err)
	}
}

// leak check 33: stopped and continued
func TestLifeStoppedAndContinued(t *testing.T) {
	tun := served(t)
	up := tun.startUp()
	tun.closed("while it is stopped", func() {
		if err := up.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// A connection would wait for the process, so here are datagrams only.
		for range 5 {
			tun.runAny("dig", "", "+time=1", "+tries=1", "@"+world.RouterIP, probeMark+".example")
			tun.runAny("dig", "", "+time=1", "+tries=1", "@"+world.DNSIP6, probeMark+".example")
		}
		if err := up.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		tun.awaitLine(up, "was stopped")
	})
	tun.recovers()
}
