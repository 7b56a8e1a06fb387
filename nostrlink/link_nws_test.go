package nostrlink

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat/reftest"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// startReference serves a scripted exit of the reference, whose destinations
// all echo, and returns its key.
func startReference(t *testing.T, key envelope.SecretKey, url string) {
	t.Helper()
	x := &reftest.Exit{Key: key, Relay: reference(t, url), URL: url, Dial: func(_, address string) (net.Conn, error) {
		if address == "refused.example:80" {
			return nil, syscall.ECONNREFUSED
		}
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			io.Copy(theirs, theirs)
		}()
		return ours, nil
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		x.Serve(ctx, ready)
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
}

// startLinkWith serves a link with opts.
func startLinkWith(t *testing.T, opts LinkOptions, exit envelope.PublicKey, relays ...string) *Link {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub := NewHub(HubOptions{})
	l := hub.NewLink(exit, relays, opts)
	l.set(Connecting, nil, nil)
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait(); hub.Close() })
	return l
}

func TestAnExitWithoutASession(t *testing.T) {
	for name, mode := range map[string]Mode{"auto": Auto, "nws": NWSOnly} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, key, url, other := patience(t), newKey(t), startRelay(t), startRelay(t)
			startReference(t, key, url)
			link := startLinkWith(t, LinkOptions{Mode: mode, Resolver: "9.9.9.9:53"}, key.Public(), other, url)
			dial := func() net.Conn {
				conn, err := link.DialContext(ctx, "tcp", "example.com:80")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				return conn
			}
			swap(t, dial(), 20_000) // one message: the reference may lose the order of more
			early, err := link.DialEarly(ctx, "tcp", "example.com:80", []byte("hello"))
			if err != nil {
				t.Fatal(err)
			}
			defer early.Close()
			got := make([]byte, 5)
			if _, err := io.ReadFull(early, got); err != nil || string(got) != "hello" {
				t.Errorf("%q came back, %v", got, err)
			}
			dns, err := link.DialContext(ctx, "dns", "")
			if err != nil {
				t.Fatal(err)
			}
			defer dns.Close()
			swap(t, dns, 40)
			for _, network := range []string{"udp", "ping"} {
				var refused *wire.Error
				if _, err := link.DialContext(ctx, network, "example.com:80"); !errors.As(err, &refused) || refused.Code != wire.CodeUnsupported {
					t.Errorf("%s: %v", network, err)
				}
			}
			s := link.Status()
			if s.State != Connected || !s.Plain || s.Relay != url || s.NWS.Opened < 3 || s.Failure != nil || len(s.Relays) != 2 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestOffersToBeConnectedTo: the exit connects to the entry (CONNECTR), and the
// streams do not pass the relay.
func TestOffersToBeConnectedTo(t *testing.T) {
	ctx, key, url := patience(t), newKey(t), startRelay(t)
	inbound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := serveListener(t, key, ListenerOptions{DialBack: new(net.Dialer).DialContext}, url)
	reverse := compat.NewReverseListener(inbound, inbound.Addr().String())
	serving, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		reverse.Serve(serving)
	}()
	defer func() { cancel(); <-done }()
	link := startLinkWith(t, LinkOptions{Mode: NWSOnly, Reverse: reverse}, key.Public(), url)
	conn, err := link.DialContext(ctx, "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, 1<<20)
	if s := link.Status().NWS; s.Reversed != 1 || s.Opened != 0 || x.Stats().NWS.Reversed != 1 {
		t.Errorf("counted %+v", s)
	}
}

// TestAnExitThatWasOnlySlow gets its session, and the streams that were begun
// without one go on.
func TestAnExitThatWasOnlySlow(t *testing.T) {
	ctx, key, url := patience(t), newKey(t), startRelay(t)
	link := startLinkWith(t, LinkOptions{}, key.Public(), url)
	link.tookGreeting()
	for !link.isPlain() {
		if ctx.Err() != nil {
			t.Fatal("the link waits for the session")
		}
		time.Sleep(time.Millisecond)
	}
	startExit(t, key, url)
	conn, err := link.DialContext(ctx, "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	swap(t, conn, 1000)
	up, err := link.open(ctx) // what it does every now and then
	if err != nil {
		t.Fatal(err)
	}
	defer up.close()
	for link.isPlain() {
		if ctx.Err() != nil {
			t.Fatal("the link still does without a session")
		}
		time.Sleep(time.Millisecond)
	}
	swap(t, conn, 1000)
}

// TestNoFallBack: where the relay says that nobody listens, where the exit has
// shown that it knows the session, and where the user wants no other.
func TestNoFallBack(t *testing.T) {
	ctx, key, url := patience(t), newKey(t), startRelay(t)
	nobody := startLinkWith(t, LinkOptions{}, newKey(t).Public(), url)
	if err := nobody.Connect(ctx); err == nil || nobody.isPlain() {
		t.Error("connected to an exit that is not there")
	}
	select {
	case <-nobody.taken:
		t.Error("a greeting that nobody listens for counts as taken")
	default:
	}

	silent := newKey(t) // somebody listens, and does not answer
	ws := reference(t, url)
	if err := ws.Subscribe(ctx, reftest.Filter{To: silent.Public()}, func(*envelope.Event) {}); err != nil {
		t.Fatal(err)
	}
	off := startLinkWith(t, LinkOptions{Resolver: "9.9.9.9:53"}, silent.Public(), url)
	if err := off.Connect(ctx); err == nil || off.isPlain() {
		t.Error("connected to an exit that answers nothing")
	}

	stop := startExit(t, key, url)
	link := startLinkWith(t, LinkOptions{}, key.Public(), url)
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case <-link.known:
	default:
		t.Error("an exit that has answered is not known")
	}
	link.tookGreeting()
	gone, cancel := context.WithTimeout(ctx, fallBackAfter+time.Second)
	defer cancel()
	link.fallBack(gone)
	if gone.Err() != nil || link.isPlain() {
		t.Error("an exit that knows the session is spoken to without")
	}
}

func TestFleeting(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	f := newFleeting(ours, time.Millisecond)
	if _, err := f.Read(make([]byte, 1)); err == nil {
		t.Error("an idle connection stays open")
	}
}

// What fails without a session is no news for who has one.
func TestFailureBesideASession(t *testing.T) {
	hub := NewHub(HubOptions{})
	defer hub.Close()
	l := hub.NewLink(newKey(t).Public(), nil, LinkOptions{})
	l.set(Connecting, nil, nil)
	l.fails(errSilent)
	if err := l.Connect(t.Context()); err != errSilent {
		t.Errorf("the link says %v", err)
	}
	up := new(opened)
	l.set(Connected, up, nil)
	l.fails(errSilent)
	if err := l.Connect(t.Context()); err != nil || l.up != up {
		t.Errorf("the session is forgotten: %v", err)
	}
}
