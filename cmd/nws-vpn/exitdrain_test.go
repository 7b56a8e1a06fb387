package main

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink"
)

// Nobody answers those who come to an exit that drains, so it is not to be found,
// while flows go on.
func TestAnExitThatDrainsTakesItsAnnouncementBack(t *testing.T) {
	e := newTestExit(t, "announce = true\n")
	e.start(e.flags, "ready")
	flow := dialFlow(t, e.entry(e.key), echoServer(t))
	echo(t, flow, "before")
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	t.Cleanup(func() { hub.Close() })
	directory := hub.NewDirectory([]string{e.relay}, nil)
	announced := func() int {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		found, err := directory.Look(ctx, nostrlink.Rule{})
		if err != nil {
			t.Fatal(err)
		}
		return len(found.Exits)
	}
	await.That(t, "the exit is announced", func() bool { return announced() == 1 })
	if _, err := e.ask(http.MethodPost, "/drain"); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the announcement is taken back", func() bool { return announced() == 0 })
	echo(t, flow, "after")
}
