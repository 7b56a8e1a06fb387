package main

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers each question over UDP with answer, nil for silence. It
// returns its address and how often it was asked.
func nameServer(t *testing.T, answer func(q dnsmessage.Message) []byte) (netip.AddrPort, *atomic.Int32) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	asked := new(atomic.Int32)
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			asked.Add(1)
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			if a := answer(q); a != nil {
				_, _ = c.WriteToUDPAddrPort(a, from) // the client may be gone
			}
		}
	})
	t.Cleanup(func() { c.Close(); serving.Wait() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), asked
}

func answerWith(code dnsmessage.RCode) func(q dnsmessage.Message) []byte {
	return func(q dnsmessage.Message) []byte {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true, RCode: code}, Questions: q.Questions}
		if code == dnsmessage.RCodeSuccess && q.Questions[0].Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60},
				Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
			}}
		}
		packed, err := m.Pack()
		if err != nil {
			return nil
		}
		return packed
	}
}

// When the first name server fails, however it does, the next one is asked, and
// goes on being asked.
func TestUplinkServersAreTriedInTurn(t *testing.T) {
	for name, fails := range map[string]func(t *testing.T) (netip.AddrPort, *atomic.Int32){
		"silent": func(t *testing.T) (netip.AddrPort, *atomic.Int32) {
			return nameServer(t, func(dnsmessage.Message) []byte { return nil })
		},
		"refuses": func(t *testing.T) (netip.AddrPort, *atomic.Int32) {
			return nameServer(t, answerWith(dnsmessage.RCodeRefused))
		},
		"fails": func(t *testing.T) (netip.AddrPort, *atomic.Int32) {
			return nameServer(t, answerWith(dnsmessage.RCodeServerFailure))
		},
		"absent": func(t *testing.T) (netip.AddrPort, *atomic.Int32) {
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return c.LocalAddr().(*net.UDPAddr).AddrPort(), new(atomic.Int32)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, asked := fails(t)
			good, _ := nameServer(t, answerWith(dnsmessage.RCodeSuccess))
			u := &nearServers{list: func() []netip.AddrPort { return []netip.AddrPort{bad, good} }}
			r := net.Resolver{PreferGo: true, Dial: u.dial}
			var first int32
			for i, host := range []string{"one.example.org.", "two.example.org."} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				got, err := r.LookupNetIP(ctx, "ip4", host)
				cancel()
				if want := []netip.Addr{netip.MustParseAddr("192.0.2.1")}; err != nil || !slices.Equal(got, want) {
					t.Errorf("%s is at %v, %v", host, got, err)
				}
				if i == 0 {
					first = asked.Load()
				}
			}
			if now := asked.Load(); now != first {
				t.Errorf("the server that failed was asked %d times more", now-first)
			}
		})
	}
}

func TestUplinkServersNone(t *testing.T) {
	u := &nearServers{list: func() []netip.AddrPort { return nil }}
	if _, err := u.dial(t.Context(), "udp", ""); err == nil || !strings.Contains(err.Error(), "name server") {
		t.Error(err)
	}
}
