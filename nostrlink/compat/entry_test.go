package compat

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

var (
	exitKey  = envelope.PublicKey{0xe1}
	entryKey = envelope.PublicKey{0xa1}
	otherKey = envelope.PublicKey{0xb2}
)

// entryTest runs f with an Entry and a stream that is open.
func entryTest(t *testing.T, opts EntryOptions, f func(t *testing.T, e *Entry, sent *recorder, c *Conn)) {
	synctest.Test(t, func(t *testing.T) {
		sent := new(recorder)
		e := NewEntry(exitKey, sent, opts)
		defer func() {
			e.Close()
			if n := e.buffered.Load(); n != 0 {
				t.Errorf("%d bytes are buffered after the end", n)
			}
		}()
		conn, err := e.DialContext(context.Background(), "tcp", "example.org:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		f(t, e, sent, conn.(*Conn))
	})
}

func TestEntryChunks(t *testing.T) {
	for _, max := range []int{0, 1, 2048, 40960, 1 << 20} {
		entryTest(t, EntryOptions{Options: Options{MaxMessage: max}}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
			data := bytes.Repeat([]byte("0123456789abcdef"), 20<<10) // 320 KiB: longer than the buffer
			if n, err := c.Write(data); n != len(data) || err != nil {
				t.Fatal(n, err)
			}
			c.Close()
			time.Sleep(linger)
			synctest.Wait()
			var got []byte
			for i := range sent.all() {
				m := sent.message(t, i)
				if len(m.Data) > 24<<10 || len(sent.text(i)) > e.opts.MaxMessage {
					t.Errorf("message of %d bytes with %d of the stream", len(sent.text(i)), len(m.Data))
				}
				if i > 0 && (m.Type != wire.TypeSocks5Response || m.Destination != "example.org:80") {
					t.Errorf("message of type %s to %q", m.Type, m.Destination)
				}
				if i == 0 && (m.Type != wire.TypeConnect || m.Data != nil) {
					t.Errorf("began with %s and %d bytes", m.Type, len(m.Data))
				}
				got = append(got, m.Data...)
			}
			if !bytes.HasPrefix(data, got) || max != 1 && max != 2048 && len(got) != len(data) {
				t.Errorf("%d of %d bytes were sent, in order: %v", len(got), len(data), bytes.HasPrefix(data, got))
			}
		})
	}
}

// One event at a time, and a while between them; what is written meanwhile
// travels together.
func TestEntryPace(t *testing.T) {
	gap := 50 * time.Millisecond
	opts := EntryOptions{Options: Options{Gap: func(envelope.PublicKey) time.Duration { return gap }}}
	entryTest(t, opts, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		sent.delay = 20 * time.Millisecond
		for range 10 {
			write(t, c, "x")
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		all := sent.all()
		if between := all[1].at.Sub(all[0].at); between < settle {
			t.Errorf("%v between CONNECT and data", between)
		}
		for i := 2; i < len(all); i++ {
			if between := all[i].at.Sub(all[i-1].at); between < gap+sent.delay {
				t.Errorf("%v between message %d and the one before", between, i)
			}
		}
		if len(all) != 2 || string(sent.message(t, 1).Data) != "xxxxxxxxxx" {
			t.Errorf("%d messages, the second with %q", len(all), sent.message(t, 1).Data)
		}
	})
}

func TestEntrySpeaksAsTheExit(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		e.Receive(incoming(exitKey, c.id, wire.TypeData, "hello"))
		if got := readFull(t, c, 5); got != "hello" {
			t.Errorf("read %q", got)
		}
		write(t, c, "x")
		time.Sleep(time.Second)
		if m := sent.message(t, 1); m.Type != wire.TypeData {
			t.Errorf("sent %s to an exit that sends DATA", m.Type)
		}
		conn, err := e.DialEarly(context.Background(), "tcp", "example.org:81", []byte("first"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		time.Sleep(time.Second)
		if m := sent.message(t, 3); m.Type != wire.TypeData || string(m.Data) != "first" {
			t.Errorf("a new stream sent %s with %q", m.Type, m.Data)
		}
	})
	entryTest(t, EntryOptions{Text: true}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		write(t, c, "x")
		time.Sleep(time.Second)
		if m := sent.message(t, 1); m.Type != wire.TypeData {
			t.Errorf("sent %s where DATA was asked for", m.Type)
		}
	})
}

func TestEntryReceives(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		first := incoming(exitKey, c.id, wire.TypeSocks5Response, "one ")
		e.Receive(first)
		e.Receive(first)
		e.Receive(incoming(otherKey, c.id, wire.TypeSocks5Response, "foreign "))
		e.Receive(incoming(exitKey, wire.NewUUID(), wire.TypeSocks5Response, "of no stream "))
		e.Receive(incoming(exitKey, c.id, wire.TypeConnect, "of no sense "))
		no := incoming(exitKey, c.id, wire.TypeData, "no UUID ")
		no.Message.Key = "1"
		e.Receive(no)
		e.Receive(incoming(exitKey, c.id, wire.TypeSocks5Response, ""))
		e.Receive(incoming(exitKey, c.id, wire.TypeSocks5Response, "two"))
		if got := readFull(t, c, 7); got != "one two" {
			t.Errorf("read %q", got)
		}
		s := e.Stats()
		if s.Repeated != 1 || s.Foreign != 1 || s.Unknown != 1 || s.Malformed != 2 || s.BytesReceived != 7 || s.Streams != 1 || s.Buffered != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// code wants an error of the wire with the code.
func code(t *testing.T, err error, want wire.Code) {
	t.Helper()
	if e := new(wire.Error); !errors.As(err, &e) || e.Code != want {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestEntryTimeouts(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(c *Conn)
		want time.Duration
	}{
		"never answered": {func(c *Conn) { c.Write([]byte("x")) }, DefaultAnswer},
		"idle":           {func(c *Conn) { c.of.conns[c.id].deliver(incoming(exitKey, c.id, wire.TypeData, "x")) }, DefaultIdle},
		"half closed":    {func(c *Conn) { c.CloseWrite() }, afterEnd},
	} {
		t.Run(name, func(t *testing.T) {
			entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, conn *Conn) {
				start := time.Now()
				c.do(conn)
				var err error
				for err == nil {
					_, err = conn.Read(make([]byte, 10))
				}
				code(t, err, wire.CodeTimedOut)
				if !errors.Is(err, syscall.ETIMEDOUT) {
					t.Errorf("%v is no ETIMEDOUT", err)
				}
				if took := time.Since(start).Round(time.Second); took != c.want {
					t.Errorf("after %v, want %v", took, c.want)
				}
				if _, err := conn.Write([]byte("x")); err == nil {
					t.Error("a write succeeded")
				}
				if s := e.Stats(); s.TimedOut != 1 || s.Streams != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestEntryHalfClose(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		write(t, c, "question")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		time.Sleep(20 * time.Second)
		e.Receive(incoming(exitKey, c.id, wire.TypeSocks5Response, "answer"))
		time.Sleep(20 * time.Second)
		e.Receive(incoming(exitKey, c.id, wire.TypeSocks5Response, " more"))
		if got := readFull(t, c, 11); got != "answer more" {
			t.Errorf("read %q", got)
		}
		if got := string(sent.message(t, 1).Data); got != "question" {
			t.Errorf("sent %q", got)
		}
	})
}

func TestEntryDialErrors(t *testing.T) {
	entryTest(t, EntryOptions{Options: Options{MaxStreams: 1}}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		for network, address := range map[string]string{"udp": "1.1.1.1:53", "ping": "1.1.1.1", "dns": ""} {
			_, err := e.DialContext(context.Background(), network, address)
			code(t, err, wire.CodeUnsupported)
			if !errors.Is(err, syscall.EOPNOTSUPP) {
				t.Errorf("%s: %v is no EOPNOTSUPP", network, err)
			}
		}
		_, err := e.DialContext(context.Background(), "tcp", "example.org:80")
		code(t, err, wire.CodeBusy)
		_, err = e.DialEarly(context.Background(), "tcp", "example.org", nil)
		code(t, err, wire.CodeDenied)
		c.Close()
		sent.onSend = func(envelope.PublicKey, string) error { return errors.New("blocked: go away") }
		_, err = e.DialContext(context.Background(), "tcp", "example.org:80")
		code(t, err, wire.CodeNetUnreachable)
		if !strings.Contains(err.Error(), "blocked: go away") {
			t.Errorf("%v", err)
		}
		sent.onSend, sent.delay = nil, time.Hour
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err = e.DialContext(ctx, "tcp", "example.org:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if s := e.Stats(); s.Streams != 0 || s.Busy != 1 || s.Unsent != 1 {
			t.Errorf("%+v", s)
		}
		e.Close()
		if _, err = e.DialContext(context.Background(), "tcp", "example.org:80"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestEntryResolver(t *testing.T) {
	entryTest(t, EntryOptions{Resolver: "192.0.2.53:53"}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		conn, err := e.DialContext(context.Background(), "dns", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := sent.message(t, 1).Destination; got != "192.0.2.53:53" {
			t.Errorf("asked for %s", got)
		}
	})
}

func TestEntryDestinationThatFailsLater(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		sent.onSend = func(envelope.PublicKey, string) error { return errors.New("mute: nobody listens") }
		write(t, c, "x")
		_, err := c.Read(make([]byte, 1))
		code(t, err, wire.CodeNetUnreachable)
		_, err = c.Write([]byte("x"))
		code(t, err, wire.CodeNetUnreachable)
	})
}

func TestConnDeadlines(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		sent.delay = time.Hour
		c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(make([]byte, 1<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n != maxUnsent {
			t.Errorf("wrote %d: %v", n, err)
		}
		c.SetDeadline(time.Time{})
		e.Receive(incoming(exitKey, c.id, wire.TypeData, "x"))
		if got := readFull(t, c, 1); got != "x" {
			t.Errorf("read %q", got)
		}
		if n, err := c.Read(nil); n != 0 || err != nil {
			t.Errorf("read of nothing: %d, %v", n, err)
		}
		c.SetDeadline(time.Now().Add(-time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestConnClose(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		sent.delay = time.Second
		write(t, c, "last words")
		failed := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read during Close: %v", err)
		}
		for _, err := range []error{c.Close(), c.CloseWrite(), c.SetDeadline(time.Now()), writeErr(c)} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		time.Sleep(5 * time.Second)
		if got := string(sent.message(t, 1).Data); got != "last words" || e.Stats().Streams != 0 {
			t.Errorf("sent %q, %d streams", got, e.Stats().Streams)
		}
	})
}

func writeErr(c net.Conn) error {
	_, err := c.Write([]byte("x"))
	return err
}

// A relay that never confirms does not hold up a closed stream for ever.
func TestConnLingers(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		sent.delay = time.Hour
		write(t, c, "x")
		time.Sleep(time.Second)
		c.Close()
		if e.Stats().Streams != 1 {
			t.Error("did not wait")
		}
		time.Sleep(linger + time.Second)
		if e.Stats().Streams != 0 {
			t.Error("waits for ever")
		}
	})
}

func TestConnOverflows(t *testing.T) {
	entryTest(t, EntryOptions{Options: Options{MaxBuffer: 10000}}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		for range 3 {
			e.Receive(incoming(exitKey, c.id, wire.TypeData, strings.Repeat("x", 4000)))
		}
		if got := readFull(t, c, 8000); len(got) != 8000 {
			t.Errorf("read %d bytes", len(got))
		}
		_, err := c.Read(make([]byte, 1))
		code(t, err, wire.CodeFlowControl)
		if s := e.Stats(); s.Overflowed != 1 || s.Streams != 0 {
			t.Errorf("%+v", s)
		}
	})
	entryTest(t, EntryOptions{Options: Options{MaxBuffered: 10000}}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		other, err := e.DialContext(context.Background(), "tcp", "example.org:80")
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		e.Receive(incoming(exitKey, other.(*Conn).id, wire.TypeData, strings.Repeat("x", 9000)))
		e.Receive(incoming(exitKey, c.id, wire.TypeData, strings.Repeat("x", 2000)))
		_, err = c.Read(make([]byte, 1))
		code(t, err, wire.CodeFlowControl)
	})
}

func TestLostMessagesEndStreams(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		came := incoming(exitKey, c.id, wire.TypeData, "x")
		e.Receive(came)
		e.Lost(came) // a relay has sent it again
		e.Lost(incoming(otherKey, c.id, wire.TypeData, "x"))
		e.Lost(incoming(exitKey, wire.NewUUID(), wire.TypeData, "x"))
		e.Lost(Incoming{From: exitKey, Message: &wire.Message{Type: wire.TypeHello}})
		if e.Stats().Streams != 1 || !e.Knows(exitKey) || e.Knows(otherKey) {
			t.Error("another message's loss ended the stream")
		}
		e.Lost(incoming(exitKey, c.id, wire.TypeData, "y"))
		c.Read(make([]byte, 1)) // what came before
		_, err := c.Read(make([]byte, 1))
		code(t, err, wire.CodeReset)
	})
}

func TestEntryCloseEndsStreams(t *testing.T) {
	entryTest(t, EntryOptions{}, func(t *testing.T, e *Entry, sent *recorder, c *Conn) {
		sent.delay = time.Hour
		write(t, c, "x")
		e.Close()
		_, err := c.Read(make([]byte, 1))
		code(t, err, wire.CodeGoingAway)
		if c.LocalAddr().String() != c.id.String() || c.RemoteAddr().Network() != "nws" {
			t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
		}
	})
}
