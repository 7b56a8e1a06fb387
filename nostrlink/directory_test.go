package nostrlink

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// startAnnounced serves an exit that announces itself on its relays.
func startAnnounced(t *testing.T, key envelope.SecretKey, relays ...string) (stop func()) {
	t.Helper()
	return startAnnouncedAs(t, key, announce.Announcement{Software: "test/1", Contact: "me"}, relays...)
}

// startAnnouncedAs is startAnnounced for an exit that says something else of itself.
func startAnnouncedAs(t *testing.T, key envelope.SecretKey, about announce.Announcement, relays ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{}, len(relays))
	hub := NewHub(HubOptions{})
	l := hub.NewListener(key, relays, ListenerOptions{Ready: func(string) { ready <- struct{}{} }})
	var running sync.WaitGroup
	running.Go(func() { l.Serve(ctx, echo) })
	for range relays {
		<-ready
	}
	running.Go(func() {
		l.Announce(ctx, func() announce.Announcement { return about }, nil)
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait(); hub.Close() })
	t.Cleanup(stop)
	return stop
}

// directory is one over relays, with its hub.
func directory(t *testing.T, relays ...string) *Directory {
	t.Helper()
	hub := NewHub(HubOptions{})
	t.Cleanup(func() { hub.Close() })
	return hub.NewDirectory(relays, nil)
}

// looked waits until the directory shows so many exits.
func looked(t *testing.T, d *Directory, rule Rule, exits int) *Found {
	t.Helper()
	ctx := patience(t)
	for {
		found, err := d.Look(ctx, rule)
		if err == nil && len(found.Exits) == exits {
			return found
		}
		if ctx.Err() != nil {
			t.Fatalf("found %+v, %v; want %d exits", found, err, exits)
		}
	}
}

// tell publishes an event on a relay.
func tell(t *testing.T, relay string, author envelope.SecretKey, kind int, at time.Time, tags ...[]string) {
	t.Helper()
	raw, id := envelopetest.Sign(t, author, envelope.Template{Kind: kind, CreatedAt: at, Tags: tags})
	hub := NewHub(HubOptions{})
	defer hub.Close()
	if err := hub.Publish(patience(t), []string{relay}, raw, id); err != nil {
		t.Fatal(err)
	}
}

func TestExitsAreListedWhileTheyAreThere(t *testing.T) {
	one, two, first, second := startRelay(t), startRelay(t), newKey(t), newKey(t)
	stop := startAnnounced(t, first, one)
	startAnnounced(t, second, one, two)
	d := directory(t, one, two)
	rule := Rule{Listed: []envelope.PublicKey{second.Public()}}
	found := looked(t, d, rule, 2)
	e := found.Exits[0]
	if e.Key != second.Public() || !e.Trusted || found.Exits[1].Trusted || len(found.Failed) > 0 {
		t.Errorf("found %+v", found)
	}
	if !slices.Equal(e.Relays, []string{one, two}) || e.Load != 0 || e.Software != "test/1" || e.Contact != "me" || len(e.Versions) != 1 {
		t.Errorf("announced %+v", e)
	}
	for i, p := range d.Probe(patience(t), found.Exits, nil) {
		if p.Err != nil || p.Time <= 0 {
			t.Errorf("exit %d: probed %+v", i, p)
		}
	}
	stop()
	if found, err := d.Look(patience(t), rule); err != nil || len(found.Exits) != 1 || found.Exits[0].Key != second.Public() {
		t.Errorf("after the end of one exit: %+v, %v", found, err)
	}
}

// TestExitThatBeginsBeforeItHasEnded: a process that withdraws the exit while
// another one announces it already does not withdraw it for long.
func TestExitThatBeginsBeforeItHasEnded(t *testing.T) {
	t.Parallel() // it waits for the clock
	relay, key := startRelay(t), newKey(t)
	stop := startAnnounced(t, key, relay)
	startAnnounced(t, key, relay)
	d := directory(t, relay)
	looked(t, d, Rule{}, 1)
	stop()
	looked(t, d, Rule{}, 1)
}

// TestARelayThatForgets: the announcement is published again when the relay is
// back.
func TestARelayThatForgets(t *testing.T) {
	var running atomic.Pointer[relayd.Server]
	running.Store(relayd.New(relayd.Options{}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { running.Load().ServeHTTP(w, r) }))
	t.Cleanup(func() { running.Load().Close(); server.Close() })
	relay := "ws" + strings.TrimPrefix(server.URL, "http")
	startAnnounced(t, newKey(t), relay)
	d := directory(t, relay)
	looked(t, d, Rule{}, 1)
	running.Swap(relayd.New(relayd.Options{})).Close()
	looked(t, d, Rule{}, 1)
}

func TestFollowersAdmit(t *testing.T) {
	relay, friend, exit, now := startRelay(t), newKey(t), newKey(t), time.Now()
	startAnnounced(t, exit, relay)
	d := directory(t, relay)
	rule := Rule{FollowsOf: []envelope.PublicKey{friend.Public(), newKey(t).Public()}}
	if e := looked(t, d, rule, 1).Exits[0]; e.Trusted {
		t.Error("trusted without any follow list")
	}
	follows := []string{"p", exit.Public().Hex()}
	tell(t, relay, newKey(t), announce.KindFollows, now, follows)
	if e := looked(t, d, rule, 1).Exits[0]; e.Trusted {
		t.Error("trusted because a stranger follows it")
	}
	tell(t, relay, friend, announce.KindFollows, now.Add(-time.Minute), follows)
	found := looked(t, d, rule, 1)
	if why := found.Trust.Why(exit.Public()); !found.Exits[0].Trusted || !strings.Contains(why, friend.Public().NPub()) {
		t.Errorf("trusted %v, because %q", found.Exits[0].Trusted, why)
	}
	tell(t, relay, friend, announce.KindFollows, now)
	if e := looked(t, d, rule, 1).Exits[0]; e.Trusted {
		t.Error("trusted by an old list")
	}
}

func TestRelaysOfAnExit(t *testing.T) {
	relay, exit, now := startRelay(t), newKey(t), time.Now()
	d := directory(t, relay)
	check := func(what string, want ...string) {
		t.Helper()
		if got := d.RelaysOf(patience(t), exit.Public()); !slices.Equal(got, want) {
			t.Errorf("%s: relays %q, want %q", what, got, want)
		}
	}
	check("nothing is known", relay)
	tell(t, relay, exit, announce.KindRelayList, now, []string{"r", "wss://read.example.org", "read"}, []string{"r", "wss://write.example.org", "write"}, []string{"r", "ws://192.168.1.1"})
	check("it has a relay list", "wss://read.example.org")
	life := []string{"expiration", fmt.Sprint(now.Add(time.Minute).Unix())}
	announced := func(ago time.Duration, relays ...string) {
		tags := [][]string{{"d", "nws"}, life}
		for _, r := range relays {
			tags = append(tags, []string{"relay", r})
		}
		tell(t, relay, exit, envelope.KindAnnouncement, now.Add(-ago), tags...)
	}
	announced(3*time.Second, "ws://10.0.0.1:7777")
	check("it announces a private relay", "wss://read.example.org")
	announced(2*time.Second, "wss://exit.example.org", "wss://127.0.0.1")
	check("it announces a public relay", "wss://exit.example.org")
	announced(time.Second, "wss://exit.example.org", relay+"/")
	check("it announces ours, too", relay)
}

// TestStrangersOfferRelays: nobody but the user makes this machine connect to
// what is not public.
func TestStrangersOfferRelays(t *testing.T) {
	bait := relaytest.New(t, relaytest.Options{})
	relay, stranger := startRelay(t), newKey(t)
	tell(t, relay, stranger, envelope.KindAnnouncement, time.Now(), []string{"d", "nws"},
		[]string{"expiration", fmt.Sprint(time.Now().Add(time.Minute).Unix())}, []string{"relay", bait.URL()})
	d := directory(t, relay)
	found := looked(t, d, Rule{}, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p := d.Probe(ctx, found.Exits, nil)[0]; p.Err == nil {
		t.Error("an exit that is not there was reached")
	}
	if _, accepted := bait.Connections(); accepted != 0 {
		t.Errorf("%d connections were made to a stranger's address", accepted)
	}
}

func TestLookingWithoutAnswer(t *testing.T) {
	good, exit := startRelay(t), newKey(t)
	startAnnounced(t, exit, good)
	silent := relaytest.New(t, relaytest.Options{Behaviour: relaytest.Behaviour{NoEOSE: true}})
	looked(t, directory(t, good), Rule{}, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	found, err := directory(t, good, silent.URL()).Look(ctx, Rule{})
	if err != nil || len(found.Exits) != 1 || len(found.Failed) != 1 || !strings.Contains(found.Failed[0].Error(), silent.URL()) {
		t.Errorf("with one of two relays: %+v, %v", found, err)
	}
	if _, err := directory(t, silent.URL()).Look(ctx, Rule{}); err == nil || !strings.Contains(err.Error(), silent.URL()) {
		t.Errorf("without a relay that answers: %v", err)
	}
	if _, err := directory(t).Look(ctx, Rule{}); err == nil || !strings.Contains(err.Error(), "--relay") {
		t.Errorf("without a relay: %v", err)
	}
}
