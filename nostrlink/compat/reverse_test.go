package compat

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

func connectR(from envelope.PublicKey, id wire.UUID, back string) Incoming {
	in := incoming(from, id, wire.TypeConnectReverse, "")
	in.Message.EntryPublicAddress = back
	return in
}

func TestExitRefusesToConnectBack(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("dialed") }
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		e.Receive(connectR(entryKey, wire.NewUUID(), "9.9.9.9:1"))
		if s := e.Stats(); s.Refused != 1 {
			t.Errorf("%+v", s)
		}
	})
	exitTest(t, ExitOptions{DialBack: dial}, func(t *testing.T, e *Exit, sent *recorder) {
		bad := []string{
			"", "9.9.9.9", "9.9.9.9:", "9.9.9.9:0", ":80", "127.0.0.1:1", "10.0.0.1:1", "192.168.1.1:1", "0.0.0.0:1",
			"169.254.169.254:80", "224.0.0.1:1", "255.255.255.255:1", "[::1]:1", "[fe80::1]:1", "[fd00::1]:1", "[::]:1",
			"[::ffff:127.0.0.1]:1", "[2600::1%eth0]:1",
		}
		for _, back := range bad {
			e.Receive(connectR(entryKey, wire.NewUUID(), back))
		}
		if s := e.Stats(); s.Refused != uint64(len(bad)) || len(e.requests) != 0 {
			t.Errorf("%+v, %d requests", s, len(e.requests))
		}
		for _, back := range []string{"9.9.9.9:1", "[2600::1]:1", "entry.example.org:1"} {
			e.Receive(connectR(entryKey, wire.NewUUID(), back))
			if _, err := accept(t, e).Accept(); err == nil || !strings.Contains(err.Error(), "dialed") {
				t.Errorf("%s: %v", back, err)
			}
		}
		again := connectR(entryKey, wire.NewUUID(), "9.9.9.9:1")
		e.Receive(again)
		e.Receive(again)
		accept(t, e).Reject(errors.New("no"))
		if s := e.Stats(); s.ReverseFailed != 3 || s.Repeated != 1 || s.Refused != uint64(len(bad))+1 || len(e.requests) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExitConnectsBackToWhoIsNoEntry(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"another byte": func(c net.Conn) { readFull(t, c, 36); c.Write([]byte{2}) },
		"silence":      func(c net.Conn) { readFull(t, c, 36) },
		"no reader":    func(net.Conn) {},
		"hangs up":     func(c net.Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var ours, theirs net.Conn
			opts := ExitOptions{DialBack: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
			exitTest(t, opts, func(t *testing.T, e *Exit, sent *recorder) {
				ours, theirs = net.Pipe()
				go answer(theirs)
				e.Receive(connectR(entryKey, wire.NewUUID(), "9.9.9.9:1"))
				start := time.Now()
				if conn, err := accept(t, e).Accept(); err == nil {
					t.Error("accepted", conn)
				}
				if took := time.Since(start); took > reverseTimeout {
					t.Errorf("after %v", took)
				}
				if _, err := ours.Write([]byte{0}); err == nil {
					t.Error("left open")
				}
				theirs.Close()
				if s := e.Stats(); s.ReverseFailed != 1 || s.Reversed != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestExitBoundsConnectionsBack(t *testing.T) {
	exitTest(t, ExitOptions{DialBack: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}, func(t *testing.T, e *Exit, sent *recorder) {
		var all sync.WaitGroup
		for range maxReverse {
			e.Receive(connectR(entryKey, wire.NewUUID(), "9.9.9.9:1"))
			r := accept(t, e)
			all.Go(func() { r.Accept() })
		}
		synctest.Wait()
		e.Receive(connectR(entryKey, wire.NewUUID(), "9.9.9.9:1"))
		_, err := accept(t, e).Accept()
		code(t, err, wire.CodeBusy)
		e.Close() // ends the dials
		all.Wait()
	})
}

// reverseTest runs f with an Entry that offers CONNECTR.
func reverseTest(t *testing.T, f func(t *testing.T, e *Entry, sent *recorder, l *pipeListener)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		reverse := NewReverseListener(l, "198.51.100.1:4443")
		serve(t, reverse.Serve)
		sent := new(recorder)
		e := NewEntry(exitKey, sent, EntryOptions{Reverse: reverse})
		defer e.Close()
		f(t, e, sent, l)
		if len(reverse.waiting) != 0 {
			t.Errorf("%d streams are still waited for", len(reverse.waiting))
		}
	})
}

// An exit that does not connect back is reached over the relays, and not asked
// again for a while.
func TestEntryFallsBackFromConnectR(t *testing.T) {
	reverseTest(t, func(t *testing.T, e *Entry, sent *recorder, l *pipeListener) {
		var kinds []string
		dial := func() time.Duration {
			start := time.Now()
			conn, err := e.DialContext(context.Background(), "tcp", "example.org:80")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			return time.Since(start)
		}
		if took := dial(); took != reverseTimeout {
			t.Errorf("waited for %v", took)
		}
		if took := dial(); took != 0 {
			t.Errorf("waited again for %v", took)
		}
		time.Sleep(reverseAgain)
		if took := dial(); took != reverseTimeout {
			t.Errorf("did not try again: %v", took)
		}
		ids := make(map[string]bool)
		for i := range sent.all() {
			m := sent.message(t, i)
			kinds = append(kinds, m.Type)
			ids[m.Key] = true
		}
		if got := strings.Join(kinds, " "); got != "CONNECTR CONNECT CONNECT CONNECTR CONNECT" || len(ids) != 5 {
			t.Errorf("sent %s, of %d streams", got, len(ids))
		}
		if s := e.Stats(); s.ReverseFailed != 2 || s.Reversed != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestEntryGivesUpConnectR(t *testing.T) {
	reverseTest(t, func(t *testing.T, e *Entry, sent *recorder, l *pipeListener) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := e.DialContext(ctx, "tcp", "example.org:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		// The exit connects too late.
		conn := l.dial()
		go conn.Write([]byte(sent.message(t, 0).Key))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the stream was taken")
		}
		conn.Close()
		sent.onSend = func(envelope.PublicKey, string) error { return errors.New("no") }
		time.Sleep(reverseAgain)
		_, err := e.DialEarly(context.Background(), "tcp", "example.org:80", []byte("x"))
		code(t, err, wire.CodeNetUnreachable)
	})
}

func TestEntryDialsEarlyByConnectR(t *testing.T) {
	reverseTest(t, func(t *testing.T, e *Entry, sent *recorder, l *pipeListener) {
		got := make(chan string, 1)
		sent.onSend = func(_ envelope.PublicKey, text string) error {
			m, err := wire.ParseMessage([]byte(text))
			if err != nil {
				return err
			}
			go func() {
				conn := l.dial()
				defer conn.Close()
				write(t, conn, strings.ToUpper(m.Key))
				got <- readFull(t, conn, 6)
			}()
			return nil
		}
		conn, err := e.DialEarly(context.Background(), "tcp", "example.org:80", []byte("first"))
		if err != nil {
			t.Fatal(err)
		}
		if text := <-got; text != "\x01first" {
			t.Errorf("sent %q", text)
		}
		conn.Close()
		if s := e.Stats(); s.Reversed != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestReverseListenerStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		reverse := NewReverseListener(l, "198.51.100.1:4443")
		stop := serve(t, reverse.Serve)
		var conns []net.Conn
		for _, text := range []string{"", "short", strings.Repeat("x", 36), wire.NewUUID().String()} {
			conn := l.dial()
			conns = append(conns, conn)
			go conn.Write([]byte(text))
		}
		time.Sleep(introduction + time.Second)
		for i, conn := range conns {
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("stranger %d was answered", i)
			}
			conn.Close()
		}
		conns = nil
		for range maxReverseReading + 3 {
			conns = append(conns, l.dial())
		}
		synctest.Wait()
		if s := reverse.Stats(); s.Strangers != 4 || s.Dropped != 3 || s.Taken != 0 {
			t.Errorf("%+v", s)
		}
		for range maxReverseWaiting {
			if _, err := reverse.expect(wire.NewUUID()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := reverse.expect(wire.NewUUID())
		code(t, err, wire.CodeBusy)
		stop() // does not wait for the silent ones
		for _, conn := range conns {
			conn.Close()
		}
	})
}
