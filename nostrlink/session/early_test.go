package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// A stream dialed early carries its first bytes, and what follows, in the time
// that the dial alone would take, and the listener finds them there.
func TestDialEarly(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		first, more := patternBytes(1, 0, 16<<10), patternBytes(1, 16<<10, 200000)
		start := time.Now()
		conn, err := p.dialer.DialEarly("tcp", "example.org:80", bytes.Clone(first))
		if err != nil || time.Since(start) != 0 {
			t.Fatalf("dial: %v after %v", err, time.Since(start))
		}
		if n, err := conn.Write(more); n != len(more) || err != nil {
			t.Errorf("wrote %d, %v before the answer", n, err)
		}
		conn.(*Stream).CloseWrite()
		req, err := p.listener.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // all of it waits there
		c, err := req.Accept()
		if err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, append(first, more...)) || time.Since(start) != 0 {
			t.Errorf("the listener reads %d bytes, %v, after %v", len(got), err, time.Since(start))
		}
		c.Write([]byte("answer"))
		c.Close()
		if got, err := io.ReadAll(conn); string(got) != "answer" || err != nil {
			t.Errorf("the dialer reads %q, %v", got, err)
		}
		conn.Close()
		p.expectNoStreams(t)
	})
}

func TestDialEarlyWrong(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		for _, network := range []string{"udp", "ping", "sctp"} {
			if _, err := p.dialer.DialEarly(network, "x:1", nil); err == nil {
				t.Errorf("dialed %s early", network)
			}
		}
		if _, err := p.dialer.DialEarly("tcp", "x:1", make([]byte, unsentFair+1)); err == nil {
			t.Error("dialed with more first bytes than are taken")
		}
		if _, err := p.listener.DialEarly("tcp", "x:1", nil); err == nil {
			t.Error("the listener dialed")
		}
	})
}

// A refusal that comes late is the error of what waits for the stream.
func TestEarlyRefused(t *testing.T) {
	for _, network := range []string{"tcp", "udp", "ping"} {
		bubble(t, func(t *testing.T, p *pair) {
			var conn net.Conn
			var err error
			if network == "tcp" {
				conn, err = p.dialer.DialEarly(network, "nowhere:1", []byte("hello"))
			} else {
				conn, err = p.dialer.DialContext(t.Context(), network, "nowhere:1")
				conn.Write([]byte("hello"))
			}
			if err != nil {
				t.Fatal(err)
			}
			p.answer(t, func(req *Request) {
				if req.Network() != network || req.Address() != "nowhere:1" {
					t.Errorf("request for %s %s", req.Network(), req.Address())
				}
				req.Reject(syscall.EHOSTUNREACH)
			})
			start := time.Now()
			var we *wire.Error
			if n, err := conn.Read(make([]byte, 10)); n != 0 || !errors.Is(err, syscall.EHOSTUNREACH) || !errors.As(err, &we) {
				t.Errorf("%s: read %d, %v", network, n, err)
			}
			if took := time.Since(start); took > 3*delay {
				t.Errorf("%s: the refusal took %v", network, took)
			}
			if _, err := conn.Write([]byte("more")); !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("%s: write: %v", network, err)
			}
			conn.Close()
			p.expectNoStreams(t)
			if st := p.listener.Stats(); st.SendBuffered+int(st.Unread) > 0 {
				t.Errorf("%s: left behind: %+v", network, st)
			}
		})
	}
}

// A flow begins with its first datagram, which travels with the request; those
// that come before the answer wait for it.
func TestFlowAtOnce(t *testing.T) {
	for _, network := range []string{"udp", "ping"} {
		bubble(t, func(t *testing.T, p *pair) {
			a, err := p.dialer.DialContext(t.Context(), network, "example.org")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if n := p.dialer.Stats().PacketsSent; n != 0 {
				t.Errorf("%d packets before the first datagram", n)
			}
			for i := range 3 {
				a.Write([]byte{byte(i)})
			}
			req, err := p.listener.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			b, err := req.Accept()
			if err != nil {
				t.Fatal(err)
			}
			pr, pw := net.Pipe()
			p.wg.Go(func() {
				n, err := b.(io.WriterTo).WriteTo(pw) // one Write each
				if n != 3 || err == nil {
					t.Errorf("%d bytes copied, %v", n, err)
				}
			})
			for i := range 3 {
				got := make([]byte, 10)
				if n, err := pr.Read(got); n != 1 || got[0] != byte(i) || err != nil {
					t.Errorf("datagram %d is %v, %v", i, got[:n], err)
				}
			}
			a.Close()
			p.expectNoStreams(t)
			b.Close()
		})
	}
}

// What is written before Close arrives although the RESET follows at once, over
// a relay that delivers in no order.
func TestResetOvertakesNothing(t *testing.T) {
	mixed := func(l *link) { l.order, l.jitter = shuffled, 400*time.Millisecond }
	s := newSim(t, 1, Config{}, 1024, relayLink(mixed))
	c := s.ends[0].core
	got := map[int]int{} // datagrams by flow
	s.onOpen = func(st *stream) {
		n := numberOf(st)
		s.at(s.now+time.Duration(n)*20*time.Millisecond, func() { // some answer late
			if err := s.ends[1].core.accept(st); err != nil {
				return // counted below
			}
			for d, ok := s.ends[1].core.takeDatagram(st); ok; d, ok = s.ends[1].core.takeDatagram(st) {
				got[n] += int(binary.BigEndian.Uint32(d)) + 1
			}
			st.owner = drain(func() {
				for d, ok := s.ends[1].core.takeDatagram(st); ok; d, ok = s.ends[1].core.takeDatagram(st) {
					got[n] += int(binary.BigEndian.Uint32(d)) + 1
				}
			})
		})
	}
	const flows, each = 20, 10
	for i := range flows {
		st := s.dial(wire.NetworkUDP, i, nil)
		for j := range each {
			c.sendDatagram(st, binary.BigEndian.AppendUint32(make([]byte, 0, 300), uint32(j))[:300])
		}
		c.close(s.now, st)
	}
	s.run(30*second, func() bool { return false })
	for i := range flows {
		if want := each * (each + 1) / 2; got[i] != want {
			t.Errorf("flow %d: the datagrams that arrived add up to %d, want %d", i, got[i], want)
		}
	}
	if c.open+s.ends[1].core.open > 0 {
		t.Errorf("%d flows left", c.open+s.ends[1].core.open)
	}
}

// drain is called when there is something to read.
type drain func()

func (d drain) wakeReader() { d() }
func (d drain) wakeWriter() {}
