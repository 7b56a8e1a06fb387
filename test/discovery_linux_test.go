package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// shelf is what a relay of other people's keeps, in memory.
type shelf struct {
	mu     sync.Mutex
	events []*nostr.Event
}

// keepOn has a relay keep its events there.
func (s *shelf) keepOn(relay *khatru.Relay) {
	relay.StoreEvent = append(relay.StoreEvent, func(_ context.Context, ev *nostr.Event) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, ev)
		return nil
	})
	relay.DeleteEvent = append(relay.DeleteEvent, func(_ context.Context, ev *nostr.Event) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = slices.DeleteFunc(s.events, func(e *nostr.Event) bool { return e.ID == ev.ID })
		return nil
	})
	relay.QueryEvents = append(relay.QueryEvents, func(_ context.Context, f nostr.Filter) (chan *nostr.Event, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		found := make(chan *nostr.Event, len(s.events))
		for _, ev := range s.events {
			if f.Matches(ev) {
				found <- ev
			}
		}
		close(found)
		return found, nil
	})
}

// exits is what "exits --json" lists in the client, by npub.
func (tun *tunnel) exits(args ...string) map[string]map[string]any {
	tun.t.Helper()
	res, err := tun.Run(tun.ctx, tun.Client, append([]string{"exits", "--relay", world.RelayURL, "--json"}, args...)...)
	if err != nil || res.Code != 0 {
		tun.t.Fatalf("exits ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	var list struct{ Exits []map[string]any }
	if err := json.Unmarshal([]byte(res.Stdout), &list); err != nil {
		tun.t.Fatalf("exits --json printed %q: %v", res.Stdout, err)
	}
	exits := make(map[string]map[string]any)
	for _, x := range list.Exits {
		exits[x["npub"].(string)] = x
	}
	return exits
}

// TestExitsThatAnnounceThemselves: two exits are listed, one is chosen; when it
// is killed, new flows use the other one; one that ends is not listed any more.
func TestExitsThatAnnounceThemselves(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelayOf("khatru", world.RelayPort)
	second, err := tun.Keygen(tun.ctx, tun.Exit, "/run/second.key")
	if err != nil {
		t.Fatal(err)
	}
	processes := map[string]*netlab.Process{tun.key: tun.startExit("--announce")}
	p, err := tun.StartExit(tun.ctx, "/run/second.key", world.Options{Args: []string{"--announce"}})
	processes[second] = tun.started("exit", p, err)
	for len(tun.exits()) < 2 {
	}
	tun.nobodyIsChosen(second)

	config := "/run/nws.toml"
	text := fmt.Sprintf("[up]\ntrust = [%q, %q]\n", tun.key, second)
	if err := tun.Client.WriteFile(config, []byte(text)); err != nil {
		t.Fatal(err)
	}
	for npub, x := range tun.exits("--probe", "--config", config) {
		if took, _ := x["handshake_ms"].(float64); processes[npub] == nil || x["trust"] != "listed" || took <= 0 {
			t.Errorf("listed: %v", x)
		}
	}
	before := tun.snapshot()
	p, err = tun.StartUp(tun.ctx, "auto", world.Options{Args: []string{"--config", config}})
	up := tun.started("up", p, err)
	first, _ := tun.status()["exit"].(string)
	if processes[first] == nil {
		t.Fatalf("the exit %s was chosen", first)
	}

	killed := make(chan struct{})
	download := &checkpoint{left: 1 << 20, reached: make(chan struct{}), released: killed}
	var downloading sync.WaitGroup
	downloading.Go(func() {
		err := tun.downloadVia(tun.ctx, "http://"+world.WebIP+"/file?size=100000000", 100e6, func(r io.Reader) io.Reader {
			download.Reader = r
			return download
		})
		if err == nil || tun.ctx.Err() != nil {
			t.Errorf("a download through an exit that was killed: %v", err)
		}
	})
	select {
	case <-download.reached:
	case <-tun.ctx.Done():
		t.Fatal("the download does not begin")
	}
	tun.kill(processes[first])
	close(killed)
	downloading.Wait()
	for {
		if _, err := tun.get("http://" + world.WebIP); err == nil {
			break
		}
		if tun.ctx.Err() != nil {
			t.Fatal("no other exit took the place of the one that was killed")
		}
	}
	now, _ := tun.status()["exit"].(string)
	if now == first || processes[now] == nil {
		t.Fatalf("after %s, the exit is %s", first, now)
	}
	tun.undone(up, before)

	if err := processes[now].Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tun.ended(processes[now], true)
	if exits := tun.exits(); exits[now] != nil {
		t.Errorf("an exit that has ended is listed: %v", exits[now])
	}
}

// nobodyIsChosen checks that up chooses no exit unless it is told whom to trust,
// and lists those there are.
func (tun *tunnel) nobodyIsChosen(listed string) {
	tun.t.Helper()
	before := tun.snapshot()
	res, err := tun.Run(tun.ctx, tun.Client, "up", "--exit", "auto", "--relay", world.RelayURL, "--state-dir", world.StateDir)
	if err != nil || res.Code != 1 || !strings.Contains(res.Stdout, listed) || !strings.Contains(res.Output, "trust =") {
		tun.t.Errorf("up without anybody to trust: code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.restored(before)
}
