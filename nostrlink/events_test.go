package nostrlink_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

func TestPublishAndFind(t *testing.T) {
	ctx := await.Context(t)
	url, gone := startRelays(t)
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	defer hub.Close()
	key := envelopetest.NewKey(t)
	sign := func(kind int) ([]byte, [32]byte) {
		event, id := envelopetest.Sign(t, key, envelope.Template{Kind: kind, CreatedAt: time.Now(), Tags: [][]string{{"d", "x"}}})
		return event, id
	}
	event, id := sign(envelope.KindCertificate)
	for range 2 { // the second time it is a duplicate, which is as good
		if err := hub.Publish(ctx, []string{gone, url}, event, id); err != nil {
			t.Fatal(err)
		}
	}
	find := func(author envelope.PublicKey, relays ...string) (int, error) {
		events, err := hub.Find(ctx, relays, []relay.Filter{{Kinds: []int{envelope.KindCertificate}, Authors: []string{author.Hex()}}})
		for _, ev := range events {
			if ev.ID != id || ev.Verify() != nil {
				t.Errorf("found another event: %x", ev.ID)
			}
		}
		return len(events), err
	}
	if n, err := find(key.Public(), url, gone, url+"/"); n != 1 || err != nil {
		t.Errorf("found %d events, %v", n, err)
	}
	if n, err := find(envelopetest.NewKey(t).Public(), url); n != 0 || err != nil {
		t.Errorf("of a stranger: found %d events, %v", n, err)
	}
	for _, relays := range [][]string{{gone}, {"http://x"}, nil} {
		if n, err := find(key.Public(), relays...); n != 0 || err == nil {
			t.Errorf("asked %q: found %d events, %v", relays, n, err)
		}
	}
	event, id = sign(1)
	if err := hub.Publish(ctx, []string{url}, event, id); err == nil || !strings.Contains(err.Error(), "blocked") {
		t.Errorf("what the relay refuses: %v", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := hub.Publish(over, []string{url}, event, id); err == nil {
		t.Error("published after the end")
	}
}

// startRelays returns the URL of a relay, and of one that has gone.
func startRelays(t *testing.T) (url, gone string) {
	t.Helper()
	for _, at := range []*string{&url, &gone} {
		server := relayd.New(relayd.Options{})
		web := httptest.NewServer(server)
		t.Cleanup(func() { server.Close(); web.Close() })
		*at = strings.Replace(web.URL, "http", "ws", 1)
		if at == &gone {
			web.Close()
		}
	}
	return url, gone
}

// While its relays are connected, too: there is nothing to wait for then.
func TestReconnectionsEnd(t *testing.T) {
	url, _ := startRelays(t)
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	defer hub.Close()
	key := envelopetest.NewKey(t)
	event, id := envelopetest.Sign(t, key, envelope.Template{Kind: envelope.KindCertificate, CreatedAt: time.Now(), Tags: [][]string{{"d", "x"}}})
	ctx, cancel := context.WithCancel(await.Context(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		hub.Reconnections(ctx, []string{url}, func(string) {})
	}()
	if err := hub.Publish(ctx, []string{url}, event, id); err != nil { // by the same connection
		t.Fatal(err)
	}
	cancel()
	select {
	case <-ended:
	case <-await.Context(t).Done():
		t.Fatal("goes on after the end of its context")
	}
}
