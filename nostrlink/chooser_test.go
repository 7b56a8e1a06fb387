package nostrlink

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
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

// An exit that does not serve everybody is chosen by those alone who have something
// to show it.
func TestPrivateExitsAreForThoseWhoHaveJoined(t *testing.T) {
	ctx, relay, exit := patience(t), startRelay(t), newKey(t)
	startAnnouncedAs(t, exit, announce.Announcement{Admission: announce.Listed}, relay)
	d := directory(t, relay)
	rule := Rule{Listed: []envelope.PublicKey{exit.Public()}}
	if found := looked(t, d, rule, 1); found.Exits[0].Admission != announce.Listed || !found.Exits[0].Trusted {
		t.Fatalf("found %+v", found.Exits)
	}
	none := d.NewChooser(rule, LinkOptions{Credentials: func(envelope.PublicKey) Credentials { return Credentials{} }})
	defer none.Close()
	if _, err := none.Start(ctx); !errors.Is(err, announce.ErrNobody) || !strings.Contains(err.Error(), "nws-vpn join") {
		t.Errorf("a stranger: %v", err)
	}
	me := newKey(t)
	joined := d.NewChooser(rule, LinkOptions{Credentials: func(key envelope.PublicKey) (c Credentials) {
		if key == exit.Public() {
			c.Identity = &me
		}
		return c
	}})
	defer joined.Close()
	link, err := joined.Start(ctx)
	if err != nil || link.Exit() != exit.Public() {
		t.Errorf("who has joined: %v", err)
	}
}
