package main

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// TestElsewhere: another relay is used for an exit that is not on the user's,
// and only then.
func TestElsewhere(t *testing.T) {
	relay, exit := announcedExit(t)
	other := envelopetest.NewKey(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	defer hub.Close()
	const there = "wss://read.example.org"
	event, id := envelopetest.Sign(t, other, envelope.Template{
		Kind: announce.KindRelayList, CreatedAt: time.Now(), Tags: [][]string{{"r", there, "read"}},
	})
	if err := hub.Publish(ctx, []string{relay}, event, id); err != nil {
		t.Fatal(err)
	}
	directory := hub.NewDirectory([]string{relay}, nil)
	for key, want := range map[envelope.PublicKey][]string{exit: nil, other.Public(): {there}} {
		link := hub.NewLink(key, []string{relay}, nostrlink.LinkOptions{})
		serving, stop := context.WithCancel(ctx)
		var done sync.WaitGroup
		done.Go(func() { link.Serve(serving) })
		if got := elsewhere(ctx, link, directory); !slices.Equal(got, want) {
			t.Errorf("exit %s is elsewhere on %q, want %q", key, got, want)
		}
		stop()
		done.Wait()
	}
}
