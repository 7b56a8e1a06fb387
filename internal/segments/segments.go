// Package segments makes TCP connections that get through a path which passes
// only small packets and does not say so: with ICMP lost on the way, neither end
// ever learns that its segments are too large.
package segments

import (
	"context"
	"syscall"
)

// Size fits into the smallest packet that every network passes, IPv6's 1280
// bytes, with the headers of IPv6 and TCP.
const Size = 1280 - 40 - 20

type key struct{}

// Small returns a context for dialing in which Control asks for small segments.
func Small(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, true) }

// AreSmall reports whether the context is one of Small's.
func AreSmall(ctx context.Context) bool { return ctx.Value(key{}) != nil }

// Control is a net.Dialer's ControlContext. In a context of Small's it bounds the
// segments of a TCP connection in both directions to Size, where the system
// can: only on Linux. It never fails.
func Control(ctx context.Context, _, _ string, c syscall.RawConn) error {
	if AreSmall(ctx) {
		_ = c.Control(bound) // large segments are better than no connection
	}
	return nil
}
