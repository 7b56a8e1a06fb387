package dnsintercept

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// played plays a name server on one connection of each network.
type played map[string]func(conn net.Conn, query []byte)

func (s played) dial(_ context.Context, network, _ string) (net.Conn, error) {
	play := s[network]
	if play == nil {
		return nil, errors.New("nobody there")
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		buf := make([]byte, maxMsg)
		n, err := far.Read(buf)
		if err != nil {
			return
		}
		play(far, buf[:n])
		_, _ = io.Copy(io.Discard, far) // until the other end is closed
	}()
	return near, nil
}

func addressAnswer(query []byte) []byte {
	q, err := parseQuery(query)
	if err != nil {
		panic(err)
	}
	return appendRecord(q.header(0, dnsmessage.RCodeSuccess, 1, 0), headerLen, dnsmessage.TypeA, 60, []byte{203, 0, 113, 9})
}

func TestPlainUpstream(t *testing.T) {
	query := ask{host: "www.example", kind: dnsmessage.TypeA, id: 7}.pack(t)
	datagrams := func(conn net.Conn, query []byte) {
		forged := addressAnswer(query)
		forged[0] ^= 1 // another ID
		other := addressAnswer(query)
		other[headerLen+1] ^= 2 // another name
		for _, b := range [][]byte{{1, 2, 3}, query, forged, other, addressAnswer(query)} {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	}
	cut := func(conn net.Conn, query []byte) {
		answer := addressAnswer(query)
		answer[2] |= flagTC >> 8
		_, _ = conn.Write(answer)
	}
	stream := func(conn net.Conn, frame []byte) { sendFrame(t, conn, addressAnswer(frame[2:])) }
	long := func(conn net.Conn, query []byte) {
		_, _ = conn.Write(append(addressAnswer(query), make([]byte, maxUDP)...))
	}
	one := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for _, tc := range []struct {
		name    string
		servers []netip.Addr
		server  played
		want    bool
	}{
		{"over UDP, past what is none", one, played{"udp": datagrams}, true},
		{"cut, then over TCP", one, played{"udp": cut, "tcp": stream}, true},
		{"too long, then over TCP", one, played{"udp": long, "tcp": stream}, true},
		{"cut, and no TCP", one, played{"udp": cut}, false},
		{"another answer over TCP", one, played{"udp": cut, "tcp": func(conn net.Conn, frame []byte) {
			answer := addressAnswer(frame[2:])
			answer[1] ^= 1
			sendFrame(t, conn, answer)
		}}, false},
		{"nobody", one, played{}, false},
		{"no server", nil, played{"udp": datagrams}, false},
	} {
		u := &PlainUpstream{Servers: func() []netip.Addr { return tc.servers }, Dial: tc.server.dial}
		answer, err := u.Exchange(t.Context(), query)
		if (err == nil) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		}
		if has, ok := hasAddress(answer, dnsmessage.TypeA); err == nil && (!has || !ok) {
			t.Errorf("%s: no address in %x", tc.name, answer)
		}
	}
	if !bytes.Equal(query[:2], []byte{0, 7}) {
		t.Error("the caller's query was changed")
	}
}

// The next server is asked when one fails, and none when the time is up.
func TestPlainUpstreamAsksTheNext(t *testing.T) {
	var asked []string
	u := &PlainUpstream{
		Servers: func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if asked = append(asked, address); len(asked) == 1 {
				return nil, errUpstream
			}
			return played{"udp": func(conn net.Conn, query []byte) { _, _ = conn.Write(addressAnswer(query)) }}.dial(ctx, network, address)
		},
	}
	query := ask{host: "www.example", kind: dnsmessage.TypeA}.pack(t)
	if _, err := u.Exchange(t.Context(), query); err != nil || len(asked) != 2 || asked[1] != "[2001:db8::1]:53" {
		t.Errorf("asked %q, %v", asked, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	asked = nil
	u.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		asked = append(asked, address)
		return nil, ctx.Err()
	}
	if _, err := u.Exchange(ctx, query); !errors.Is(err, context.Canceled) || len(asked) != 1 {
		t.Errorf("after the end: asked %q, %v", asked, err)
	}
}
