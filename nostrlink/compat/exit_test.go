package compat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

func exitTest(t *testing.T, opts ExitOptions, f func(t *testing.T, e *Exit, sent *recorder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sent := new(recorder)
		e := NewExit(sent, opts)
		f(t, e, sent)
		e.Close()
		if _, err := e.Accept(context.Background()); !errors.Is(err, net.ErrClosed) && err != nil {
			t.Errorf("Accept after Close: %v", err)
		}
		e.Receive(incoming(entryKey, wire.NewUUID(), wire.TypeConnect, ""))
		if n := e.Stats().Streams; n != 0 {
			t.Errorf("%d streams after the end", n)
		}
	})
}

// connect has an entry ask for a stream, and accepts it.
func connect(t *testing.T, e *Exit, from envelope.PublicKey) (wire.UUID, *Conn) {
	t.Helper()
	id := wire.NewUUID()
	e.Receive(incoming(from, id, wire.TypeConnect, ""))
	return id, acceptConn(t, accept(t, e)).(*Conn)
}

func TestExitSpeaksAsTheEntry(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		for i, kind := range []string{wire.TypeData, wire.TypeSocks5Response} {
			id, c := connect(t, e, entryKey)
			e.Receive(incoming(entryKey, id, kind, "hello"))
			if got := readFull(t, c, 5); got != "hello" {
				t.Errorf("read %q", got)
			}
			write(t, c, "answer")
			time.Sleep(time.Second)
			m := sent.message(t, i)
			if m.Type != kind || m.Key != id.String() || string(m.Data) != "answer" || m.Destination != "" || sent.to(i) != entryKey {
				t.Errorf("answered %+v", m)
			}
			c.Close()
		}
	})
}

// The text's example sends the first bytes along with CONNECT.
func TestExitTakesDataOfConnect(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		id := wire.NewUUID()
		request := incoming(entryKey, id, wire.TypeConnect, "GET /hello HTTP/1.1")
		request.Message.Destination = "google.com"
		e.Receive(request)
		r := accept(t, e)
		if r.Address() != "google.com:80" || r.ID() != id {
			t.Errorf("request for %s, %x", r.Address(), r.ID())
		}
		c := acceptConn(t, r)
		if got := readFull(t, c, 19); got != "GET /hello HTTP/1.1" {
			t.Errorf("read %q", got)
		}
		if _, err := r.Accept(); err == nil {
			t.Error("accepted twice")
		}
		r.Reject(errors.New("no"))
		write(t, c, "x")
		time.Sleep(time.Second)
		if m := sent.message(t, 0); m.Type != wire.TypeData {
			t.Errorf("sent %s to one who speaks the text", m.Type)
		}
	})
}

func TestExitHoldsWhatOvertakesItsConnect(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		id := wire.NewUUID()
		one := incoming(entryKey, id, wire.TypeSocks5Response, "one ")
		e.Receive(one)
		e.Receive(one)
		e.Receive(incoming(otherKey, id, wire.TypeSocks5Response, "another's "))
		e.Receive(incoming(entryKey, id, wire.TypeSocks5Response, "two "))
		time.Sleep(holdTime - time.Second)
		e.Receive(incoming(entryKey, id, wire.TypeConnect, "zero "))
		e.Receive(incoming(entryKey, id, wire.TypeSocks5Response, "three"))
		c := acceptConn(t, accept(t, e))
		if got := readFull(t, c, 18); got != "zero one two three" {
			t.Errorf("read %q", got)
		}
	})
}

func TestExitGivesUpSpoiltStreams(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		late, long := wire.NewUUID(), wire.NewUUID()
		e.Receive(incoming(entryKey, late, wire.TypeData, "x"))
		for range 6 {
			e.Receive(incoming(entryKey, long, wire.TypeData, strings.Repeat("x", 60000)))
		}
		time.Sleep(holdTime)
		e.Receive(incoming(entryKey, wire.NewUUID(), wire.TypeData, "x")) // which has the rest looked at
		for _, id := range []wire.UUID{late, long} {
			e.Receive(incoming(entryKey, id, wire.TypeConnect, ""))
		}
		if s := e.Stats(); s.Streams != 0 || s.Spoilt != 4 || s.Unknown != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExitBindsStreamsToTheirKey(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		id, c := connect(t, e, entryKey)
		e.Receive(incoming(otherKey, id, wire.TypeData, "foreign"))
		e.Receive(incoming(otherKey, id, wire.TypeConnect, ""))
		e.Receive(incoming(otherKey, id, wire.TypeConnectReverse, ""))
		e.Receive(incoming(entryKey, id, wire.TypeConnect, ""))
		e.Receive(incoming(entryKey, id, wire.TypeData, "own"))
		if got := readFull(t, c, 3); got != "own" {
			t.Errorf("read %q", got)
		}
		c.Close()
		// Not even when it is gone.
		e.Receive(incoming(otherKey, id, wire.TypeConnect, ""))
		e.Receive(incoming(entryKey, id, wire.TypeConnect, ""))
		e.Receive(incoming(entryKey, id, wire.TypeData, "late"))
		s := e.Stats()
		if s.Foreign != 2 || s.Repeated != 3 || s.Unknown != 1 || s.Refused != 1 || s.Streams != 0 || s.Held != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExitRefusesStaleRequests(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		for _, off := range []time.Duration{-maxSkew - 2*time.Second, maxSkew + 2*time.Second} {
			for _, kind := range []string{wire.TypeConnect, wire.TypeData} {
				in := incoming(entryKey, wire.NewUUID(), kind, "")
				in.CreatedAt = time.Now().Add(off).Unix()
				e.Receive(in)
			}
		}
		// What was taken once is remembered for as long as it is not stale.
		again := incoming(entryKey, wire.NewUUID(), wire.TypeConnect, "")
		again.CreatedAt = time.Now().Add(maxSkew).Unix()
		e.Receive(again)
		acceptConn(t, accept(t, e)).Close()
		for range 10 {
			time.Sleep(30 * time.Second)
			e.Receive(again)
		}
		if s := e.Stats(); s.Opened != 1 || s.Stale < 6 || s.Stale+s.Repeated != 14 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExitMalformed(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		noID := incoming(entryKey, wire.NewUUID(), wire.TypeConnect, "")
		noID.Message.Key = "no UUID"
		e.Receive(noID)
		e.Receive(incoming(entryKey, wire.NewUUID(), wire.TypeHello, ""))
		for _, kind := range []string{wire.TypeConnect, wire.TypeConnectReverse} {
			nowhere := incoming(entryKey, wire.NewUUID(), kind, "")
			nowhere.Message.Destination = ""
			e.Receive(nowhere)
		}
		if s := e.Stats(); s.Malformed != 4 || s.Streams != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExitRejects(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		id := wire.NewUUID()
		e.Receive(incoming(entryKey, id, wire.TypeConnect, ""))
		r := accept(t, e)
		r.Reject(&wire.Error{Code: wire.CodeDenied})
		if _, err := r.Accept(); err == nil {
			t.Error("accepted after Reject")
		}
		e.Receive(incoming(entryKey, id, wire.TypeData, "x"))
		time.Sleep(time.Second)
		if s := e.Stats(); s.Refused != 1 || s.Streams != 0 || s.Unknown != 1 || len(sent.all()) != 0 {
			t.Errorf("%+v, %d messages", s, len(sent.all()))
		}
	})
}

func TestExitBounds(t *testing.T) {
	exitTest(t, ExitOptions{Options: Options{MaxStreams: 4}, MaxPerPeer: 2}, func(t *testing.T, e *Exit, sent *recorder) {
		var ids []wire.UUID
		for i := range 4 {
			id, _ := connect(t, e, envelope.PublicKey{byte(i / 2)})
			ids = append(ids, id)
		}
		ask := func(from envelope.PublicKey) { e.Receive(incoming(from, wire.NewUUID(), wire.TypeConnect, "")) }
		ask(envelope.PublicKey{0}) // has two
		ask(envelope.PublicKey{9}) // and all are young
		if s := e.Stats(); s.Busy != 2 || s.Evicted != 0 || s.Streams != 4 {
			t.Errorf("%+v", s)
		}
		time.Sleep(evictable)
		e.Receive(incoming(envelope.PublicKey{0}, ids[0], wire.TypeData, "x"))
		ask(envelope.PublicKey{9})
		if s := e.Stats(); s.Busy != 2 || s.Evicted != 1 || s.Streams != 4 {
			t.Errorf("%+v", s)
		}
		e.mu.Lock()
		if e.conns[ids[0]] == nil {
			t.Error("the stream that was heard of had to go")
		}
		e.mu.Unlock()
	})
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		for i := range backlog + 1 {
			e.Receive(incoming(envelope.PublicKey{byte(i)}, wire.NewUUID(), wire.TypeConnect, ""))
		}
		if s := e.Stats(); s.Busy != 1 || s.Streams != backlog {
			t.Errorf("%+v", s)
		}
	})
}

// An entry that is gone does not say so, and a server does not stop sending.
func TestExitGivesUpSilentEntries(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		_, c := connect(t, e, entryKey)
		start := time.Now()
		var err error
		for err == nil {
			_, err = c.Write([]byte("news"))
			time.Sleep(time.Second)
		}
		code(t, err, wire.CodeTimedOut)
		if took := time.Since(start); took < DefaultSilence || took > DefaultSilence+2*time.Second {
			t.Errorf("after %v", took)
		}
		if s := e.Stats(); s.TimedOut != 1 || s.Streams != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExitIdleStreams(t *testing.T) {
	exitTest(t, ExitOptions{Options: Options{Idle: time.Minute}}, func(t *testing.T, e *Exit, sent *recorder) {
		connect(t, e, entryKey)
		time.Sleep(time.Minute - time.Second)
		if e.Stats().Streams != 1 {
			t.Error("gone too early")
		}
		time.Sleep(2 * time.Second)
		if e.Stats().Streams != 0 {
			t.Error("still there")
		}
	})
}

func TestExitOverflowWhileConnecting(t *testing.T) {
	exitTest(t, ExitOptions{Options: Options{MaxBuffer: 1000}}, func(t *testing.T, e *Exit, sent *recorder) {
		id := wire.NewUUID()
		e.Receive(incoming(entryKey, id, wire.TypeData, strings.Repeat("x", 2000)))
		e.Receive(incoming(entryKey, id, wire.TypeConnect, ""))
		_, slow := connect(t, e, entryKey)
		e.Receive(incoming(entryKey, slow.id, wire.TypeData, strings.Repeat("x", 2000)))
		if s := e.Stats(); s.Streams != 0 || s.Overflowed != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// A stranger may fill what is held and remembered, and no more.
func TestExitFlood(t *testing.T) {
	exitTest(t, ExitOptions{}, func(t *testing.T, e *Exit, sent *recorder) {
		for i := range 3 * maxHeld {
			e.Receive(incoming(entryKey, wire.UUID{byte(i), byte(i >> 8)}, wire.TypeData, strings.Repeat("x", 1000)))
		}
		if len(e.early.held) != maxHeld || len(e.early.order) != maxHeld || e.early.bytes > maxHeldBytes {
			t.Errorf("%d streams in %d and %d bytes held", len(e.early.held), len(e.early.order), e.early.bytes)
		}
		for i := range maxSpoilt {
			e.early.spoil(holdKey{id: wire.UUID{1, byte(i), byte(i >> 8)}})
		}
		if len(e.early.spoilt) != maxSpoilt {
			t.Errorf("%d spoilt", len(e.early.spoilt))
		}
		for i := range maxUsed + 1 {
			id := wire.UUID{2, byte(i), byte(i >> 8), byte(i >> 16)}
			in := incoming(envelope.PublicKey{byte(i), byte(i >> 8)}, id, wire.TypeConnect, "")
			e.Receive(in)
			select {
			case r := <-e.requests:
				r.Reject(errors.New("no"))
			default:
			}
		}
		if s := e.Stats(); s.Busy != 1 || s.Opened != maxUsed {
			t.Errorf("%+v", s)
		}
		time.Sleep(keepUsed)
		connect(t, e, entryKey)
		if n := len(e.used.order); n != 1 {
			t.Errorf("%d requests remembered", n)
		}
	})
}

func TestSeen(t *testing.T) {
	var s seen
	id := func(i int) (id [32]byte) { copy(id[:], fmt.Sprintf("%08d", i)); return id }
	for i := range maxSeen {
		if !s.add(id(i), int64(i)) || s.add(id(i), int64(i)) {
			t.Fatalf("event %d", i)
		}
	}
	if len(s.ids) != maxSeen || !s.add(id(maxSeen), maxSeen) || len(s.ids) != maxSeen {
		t.Errorf("%d remembered", len(s.ids))
	}
	if s.add(id(0), 0) {
		t.Error("an old event is taken for new once it is forgotten")
	}
	if !s.add(id(maxSeen+1), maxSeen-maxSeenAge) {
		t.Error("a new event that is a little old is refused")
	}
}

func TestRequested(t *testing.T) {
	const nostr = "spk0elj8bpfv48c1mobhargqsktrs7f7fdmge05i16hs05o4oreg.nostr"
	for text, want := range map[string]string{
		"google.com":         "google.com:80",
		"google.com:443":     "google.com:443",
		"192.0.2.1":          "192.0.2.1:80",
		"2001:db8::1":        "[2001:db8::1]:80",
		"[2001:db8::1]":      "[2001:db8::1]:80",
		"[2001:db8::1]:443":  "[2001:db8::1]:443",
		nostr:                nostr,
		nostr + ":8080":      nostr + ":8080",
		"relay.label.nostr.": "relay.label.nostr.",
		"npub1ue5qw4ngte0lygvpkct32ms6u5amu8080dkswq9jpx3uq9cycmwspyezm3": nostr,
	} {
		if got, err := requested(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":80", "a b", "a\n:80", "a:b:c", "exämple:80", `"`, strings.Repeat("a", 600)} {
		if got, err := requested(text); err == nil {
			t.Errorf("%q is read as %q", text, got)
		}
	}
}

func TestAsked(t *testing.T) {
	const npub = "npub1ue5qw4ngte0lygvpkct32ms6u5amu8080dkswq9jpx3uq9cycmwspyezm3"
	const nostr = "spk0elj8bpfv48c1mobhargqsktrs7f7fdmge05i16hs05o4oreg.nostr"
	exit, err := envelope.ParsePublicKey(npub)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"example.org:80":           "example.org:80",
		"[2001:db8::1]:443":        "[2001:db8::1]:443",
		nostr + ":80":              nostr,
		"SPK0" + nostr[4:] + ":80": nostr,
		nostr + ".:80":             nostr,
		npub + ":80":               nostr,
		npub + ".nostr:80":         nostr,
	} {
		if got, err := asked(address, exit); err != nil || got != want {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
	for _, address := range []string{"", "a", "a:0", "a:65536", "a:http", ":80", "a b:80", "blog.nostr:80", strings.Repeat("a", 600) + ":80"} {
		if got, err := asked(address, exit); err == nil {
			t.Errorf("%q becomes %q", address, got)
		}
	}
	if _, err := asked(nostr+":80", otherKey); err == nil {
		t.Error("the name of another exit is sent")
	}
}
