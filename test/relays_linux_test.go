package test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
	"github.com/pippellia-btc/rely"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// The relays of other people run as processes of their own, which are this
// program again with relayAs in the environment: KIND ADDRESS.
const relayAs = "NWS_TEST_RELAY"

// serveAsRelay is what such a process does until it is killed.
func serveAsRelay(as string) error {
	kind, address, _ := strings.Cut(as, " ")
	var handler http.Handler
	switch kind {
	case "khatru":
		relay := khatru.NewRelay()
		relay.Log = log.New(io.Discard, "", 0)
		new(shelf).keepOn(relay)
		handler = relay
	case "rely":
		relay := rely.NewRelay(rely.WithLogger(slog.New(slog.DiscardHandler)))
		relay.On.Event = func(rely.Client, *nostr.Event) error { return nil }
		relay.On.Req = func(context.Context, rely.Client, nostr.Filters) ([]nostr.Event, error) { return nil, nil }
		relay.Start(context.Background())
		handler = relay
	case "storyteller":
		handler = newStoryteller()
	default:
		return fmt.Errorf("test: no relay of kind %q", kind)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("relay listening", l.Addr())
	return http.Serve(l, handler)
}

// relayKinds are the relays that the tests of transfers run over.
var relayKinds = []string{"embedded", "khatru", "rely"}

// overRelays runs f over a relay of every kind.
func overRelays(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range relayKinds {
		t.Run(kind, func(t *testing.T) { f(t, kind) })
	}
}

// startRelayOf starts a relay of a kind on a port of the relay's host and waits
// until it listens.
func (tun *tunnel) startRelayOf(kind, port string) *netlab.Process {
	tun.t.Helper()
	address := net.JoinHostPort(world.RelayIP, port)
	opts, path, args := netlab.CommandOptions{}, binary, []string{"relay", "--listen", address}
	if kind != "embedded" {
		var err error
		if path, err = os.Executable(); err != nil {
			tun.t.Fatal(err)
		}
		opts.Env, args = []string{relayAs + "=" + kind + " " + address}, nil
	}
	p, err := tun.Relay.Start(opts, path, args...)
	if err == nil {
		_, err = p.WaitLine(tun.ctx, func(line string) bool { return strings.HasPrefix(line, "relay listening") })
	}
	if kind == "embedded" {
		return tun.started("relay", p, err)
	}
	if err != nil {
		tun.t.Fatal(err)
	}
	return p
}
