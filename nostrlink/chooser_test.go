package nostrlink

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

func TestTheNextExitTakesThePlaceOfOneThatDies(t *testing.T) {
	ctx, relay := patience(t), startRelay(t)
	stops := make(map[envelope.PublicKey]func())
	var rule Rule
	for range 2 {
		key := newKey(t)
		stops[key.Public()] = startAnnounced(t, key, relay)
		rule.Listed = append(rule.Listed, key.Public())
	}
	startAnnounced(t, newKey(t), relay) // nobody trusts it
	d := directory(t, relay)
	looked(t, d, rule, 3)
	c := d.NewChooser(rule, LinkOptions{})
	defer c.Close()
	link, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	router := d.hub.NewRouter(link, []string{relay}, LinkOptions{})
	defer router.Close()
	c.Watch(router.SetMain)
	dial := func() net.Conn {
		t.Helper()
		conn, err := router.DialContext(ctx, "tcp", "example.com:80")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	old := dial()
	first := router.Main().Exit()
	if stops[first] == nil {
		t.Fatalf("a stranger was chosen: %s", first)
	}
	stops[first]()
	if _, err := io.ReadAll(old); err == nil {
		t.Error("a flow outlived its exit")
	}
	old.Close()
	roundTrip(t, dial(), 1000) // waits for the next exit
	if second := router.Main().Exit(); second == first || stops[second] == nil {
		t.Errorf("after %s comes %s", first, second)
	}
}

func TestNobodyIsChosen(t *testing.T) {
	relay, exit := startRelay(t), newKey(t)
	startAnnounced(t, exit, relay)
	d := directory(t, relay)
	looked(t, d, Rule{}, 1)
	for what, test := range map[string]struct {
		rule Rule
		want error
	}{
		"without a rule":               {Rule{}, announce.ErrNoTrust},
		"with a list that nobody has":  {Rule{FollowsOf: []envelope.PublicKey{exit.Public()}}, announce.ErrNoTrust},
		"with a rule for another exit": {Rule{Listed: []envelope.PublicKey{newKey(t).Public()}}, announce.ErrUnreachable},
	} {
		c := d.NewChooser(test.rule, LinkOptions{})
		ctx, cancel := context.WithCancel(patience(t))
		if _, err := c.Start(ctx); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", what, err, test.want)
		}
		cancel()
		c.Close()
	}
}

// TestListedExitsNeedNotAnnounceThemselves: an exit of a private circle.
func TestListedExitsNeedNotAnnounceThemselves(t *testing.T) {
	relay, exit := startRelay(t), newKey(t)
	startExit(t, exit, relay)
	c := directory(t, relay).NewChooser(Rule{Listed: []envelope.PublicKey{exit.Public()}}, LinkOptions{})
	defer c.Close()
	if link, err := c.Start(patience(t)); err != nil || link.Exit() != exit.Public() {
		t.Errorf("chosen: %v, %v", link, err)
	}
}
