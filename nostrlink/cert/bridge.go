package cert

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// DialFunc connects to the real site of a bridge, offering the application
// protocols that the local program offers, and verifies it: the handshake must be
// over when it returns. (tls.Config's NextProtos takes alpn as it is.)
type DialFunc func(ctx context.Context, alpn []string) (*tls.Conn, error)

// Bridge does the handshake of a local program's TLS connection to host, a name
// under .nostr, as that host: with a certificate of the authority, and not
// before dial has reached and verified the real site. The two speak the same
// application protocol then, and what one sends is to be passed to the other.
//
// A program that asks for another host, or dial's failure, ends the handshake
// with an error; local is then still the caller's to close, and nothing else is
// open. Bridge should have a context with a deadline.
func (a *Authority) Bridge(ctx context.Context, local net.Conn, host string, dial DialFunc) (in, out *tls.Conn, err error) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	var refused error
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			var answer *tls.Config
			answer, out, refused = a.answer(hello, host, dial)
			return answer, refused
		},
	}
	in = tls.Server(local, config)
	if err = in.HandshakeContext(ctx); err == nil && out == nil {
		err = errors.New("no handshake")
	}
	if err == nil {
		return in, out, nil
	}
	if out != nil {
		out.Close()
	}
	if refused != nil {
		err = refused
	}
	return nil, nil, fmt.Errorf("cert: bridge to %s: %w", host, err)
}

// answer reaches the real site and returns how to answer the local program.
func (a *Authority) answer(hello *tls.ClientHelloInfo, host string, dial DialFunc) (*tls.Config, *tls.Conn, error) {
	// Without a name it can only have meant the host that it connected to.
	if asked := strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")); asked != "" && asked != host {
		return nil, nil, fmt.Errorf("the program asks for %.80q", asked)
	}
	leaf, err := a.Leaf(host, time.Now())
	if err != nil {
		return nil, nil, err
	}
	out, err := dial(hello.Context(), hello.SupportedProtos)
	if err != nil {
		return nil, nil, err
	}
	answer := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*leaf}}
	if alpn := out.ConnectionState().NegotiatedProtocol; alpn != "" {
		answer.NextProtos = []string{alpn}
	}
	return answer, out, nil
}
