package relay

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
)

// Filter says which events a subscription wants; see [nip01.Filter].
type Filter = nip01.Filter

// Options are the settings of a connection. The zero value works.
type Options struct {
	// DialContext opens the network connection, so that its socket can bypass
	// the tunnel; nil for net.Dialer's. Its context asks for small segments when
	// that may help; segments.Control heeds it.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is the configuration for wss; nil for the default.
	TLS *tls.Config
	// Auth answers the relay's request to authenticate (NIP-42). It is called in a goroutine
	// of its own, one at a time. Nil: the request is not answered.
	Auth Signer
	// OnNotice gets what the relay says in a NOTICE, shortened and printable.
	// It must not block. Nil: notices are only logged.
	OnNotice func(text string)
	// Log is nil for none.
	Log *slog.Logger

	// ReplyTimeout bounds the waits for the connection, the websocket
	// handshake, EOSE and the verdict on an AUTH; zero for 10 s.
	ReplyTimeout time.Duration
	// OKTimeout is how long a publish may stay without OK; zero for 10 s.
	OKTimeout time.Duration
	// PingAfter is how long the relay may be silent before it is asked whether
	// it lives; zero for 10 s. While a publish waits for its OK it is asked
	// after at most 2 s.
	PingAfter time.Duration
	// PongTimeout is how long it may stay silent then; zero for 5 s.
	PongTimeout time.Duration

	// Window is how many publishes may be without OK; zero for 64.
	Window int
	// MaxMessage is the largest message accepted from the relay in bytes; zero
	// for 256 KiB. The connection ends at a larger one.
	MaxMessage int
	// QueueBytes is how much may wait to be written; zero for 256 KiB. One
	// message is always taken.
	QueueBytes int
}

// askEarly is after how much silence a relay is asked while a verdict is due.
const askEarly = 2 * time.Second

func (o Options) withDefaults() Options {
	seconds := func(d *time.Duration, n int) {
		if *d <= 0 {
			*d = time.Duration(n) * time.Second
		}
	}
	seconds(&o.ReplyTimeout, 10)
	seconds(&o.OKTimeout, 10)
	seconds(&o.PingAfter, 10)
	seconds(&o.PongTimeout, 5)
	number := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	number(&o.Window, 64)
	number(&o.MaxMessage, 256<<10)
	number(&o.QueueBytes, 256<<10)
	if o.DialContext == nil {
		o.DialContext = (&net.Dialer{ControlContext: segments.Control}).DialContext
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
