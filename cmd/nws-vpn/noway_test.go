package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func TestExplainNoWay(t *testing.T) {
	npub := envelopetest.NewKey(t).Public().NPub()
	absent := "exit " + npub + " does not listen on relay ws://a:1: is the exit running, on this relay, and is its key right?"
	mute := "exit " + npub + " did not answer through relay wss://b (the relay said: pow: 20 bits; so there): is the exit running, and is its key right?"
	for _, c := range []struct{ name, err, want string }{
		{"refused", "relay ws://10.0.0.1:7: cannot be reached: dial tcp 10.0.0.1:7: connect: connection refused",
			"there is no way to the exit home:\n  relay ws://10.0.0.1:7: cannot be reached: connection refused"},
		{"no such host", "relay wss://r.example: cannot be reached: dial tcp: lookup r.example on 10.0.0.1:53: no such host",
			"there is no way to the exit home:\n  relay wss://r.example: cannot be reached: lookup r.example on 10.0.0.1:53: no such host"},
		{"blackholed", `relay wss://r: cannot be reached: it did not answer in time: failed to WebSocket dial: failed to send handshake request: Get "https://r": context deadline exceeded`,
			"there is no way to the exit home:\n  relay wss://r: no answer in 10 s"},
		{"not tried to its end", `relay wss://r: not connected yet: context deadline exceeded`, "there is no way to the exit home:\n  relay wss://r: no answer in 10 s"},
		{"silent", `relay wss://r: accepted the connection but did not answer the websocket handshake in time: no answer: failed to WebSocket dial: Get "https://r": context deadline exceeded`,
			"there is no way to the exit home:\n  relay wss://r: accepted the connection but did not answer the websocket handshake"},
		{"no relay", `relay ws://r: answered HTTP 404 instead of a websocket ("gone; away"); is this the URL of a Nostr relay?`,
			"there is no way to the exit home:\n  relay ws://r: answered HTTP 404 instead of a websocket (\"gone; away\"); is this the URL of a Nostr relay?"},
		{"a greeting refused", "relay wss://r refused the greeting: blocked: no: use another relay",
			"there is no way to the exit home:\n  relay wss://r: refused the greeting: blocked: no: use another relay"},
		{"no exit", absent, "there is no way to the exit home:\n  relay ws://a:1: the exit does not listen\nis the exit running, on this relay, and is its key right?"},
		{"several", absent + "; " + mute + "; relay ws://c: cannot be reached: dial tcp 10.0.0.1:7: connect: network is unreachable",
			"there is no way to the exit home:\n  relay ws://a:1: the exit does not listen\n  relay wss://b: the exit did not answer (the relay said: pow: 20 bits; so there)\n" +
				"  relay ws://c: cannot be reached: network is unreachable\nis the exit running, on these relays, and is its key right?"},
		{"the exit's own words", "the exit refused: you are not invited", "the exit refused: you are not invited"},
	} {
		err := errors.New(c.err)
		got := explainNoWay(err, "home")
		if got.Error() != c.want || !errors.Is(got, err) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if strings.Contains(got.Error(), npub) {
			t.Errorf("%s: the exit is named by its key, too", c.name)
		}
	}
}
