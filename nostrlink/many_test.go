package nostrlink_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// TestTenThousandFlows opens, uses and closes flows, a thousand at a time. They
// must leave nothing behind.
func TestTenThousandFlows(t *testing.T) {
	const rounds, each = 10, 1000
	ctx := await.Context(t)
	server := relayd.New(relayd.Options{})
	web := httptest.NewServer(server)
	defer func() { server.Close(); web.Close() }()
	url, key := strings.Replace(web.URL, "http", "ws", 1), envelopetest.NewKey(t)
	var handlers atomic.Int64
	serveExit(t, key, func(ctx context.Context, req nostrlink.Request) {
		handlers.Add(1)
		defer handlers.Add(-1)
		nostrlink.Echo(ctx, req)
	}, url)
	link, _ := serveLink(t, key.Public(), url)
	idle := func() bool { return handlers.Load() == 0 && link.Status().Session.Streams == 0 }
	round := func() {
		var use, all sync.WaitGroup
		use.Add(each)
		for range each {
			all.Go(func() {
				if err := useFlow(ctx, link, func() { use.Done(); use.Wait() }); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		await.That(t, "the flows are closed at both ends", idle)
	}
	round() // fills pools and grows buffers
	before, ours := heap(), goleak.IgnoreCurrent()
	goroutines := runtime.NumGoroutine()
	for range rounds {
		round()
	}
	await.That(t, "the goroutines of the flows have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
	if err := goleak.Find(ours); err != nil {
		t.Error(err)
	}
	const allowed = 4 << 20 // 400 bytes for each flow
	if after := heap(); after > before+allowed {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	if s := link.Status().Session; s.StreamsOpened < (rounds+1)*each {
		t.Errorf("%d flows were opened", s.StreamsOpened)
	}
}

// useFlow opens a flow, waits for the others by meet, uses it and closes it.
func useFlow(ctx context.Context, link *nostrlink.Link, meet func()) error {
	conn, err := link.DialContext(ctx, "tcp", "example.com:80")
	meet()
	if err != nil {
		return err
	}
	defer conn.Close()
	return echoed(conn, 100)
}

// heap is how many bytes are in use.
func heap() uint64 {
	var m runtime.MemStats
	for range 2 { // pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// memory is a relay in memory, for tests in fake time.
func memory(t *testing.T, handler http.Handler) nostrlink.HubOptions {
	l := relaytest.NewListener()
	web := &http.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() { web.Serve(l) })
	t.Cleanup(func() {
		web.Close()
		serving.Wait()
	})
	return nostrlink.HubOptions{Relay: relay.Options{DialContext: l.DialContext}}
}

// inMemory is the URL of whatever relay a hub of memory's options dials.
const inMemory = "ws://relay.test"

// TestSeveralExitsOfOneKey: the first WELCOME wins, the sessions that the other
// exits have opened for nothing expire. When the exit that won goes, the next
// session is at another, until none is left.
func TestSeveralExitsOfOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := relayd.New(relayd.Options{})
		opts := memory(t, server)
		key := envelopetest.NewKey(t)
		var listeners [3]*nostrlink.Listener
		var stops [3]func()
		for i := range listeners {
			listeners[i], stops[i] = replica(t, opts, key, i)
		}
		hub := nostrlink.NewHub(opts)
		link := hub.NewLink(key.Public(), []string{inMemory}, nostrlink.LinkOptions{})
		ctx, cancel := context.WithCancel(context.Background())
		var serving sync.WaitGroup
		serving.Go(func() { link.Serve(ctx) })
		defer func() { cancel(); serving.Wait(); hub.Close(); server.Close() }()

		gone := map[int]bool{}
		for range listeners {
			at := served(t, link)
			if gone[at] {
				t.Fatalf("exit %d answers after its end", at)
			}
			await.That(t, "every exit that is there opens a session", func() bool {
				opened := 0
				for _, l := range listeners {
					opened += l.Sessions()
				}
				return opened == len(listeners)-len(gone)
			})
			time.Sleep(time.Minute) // what nobody took up has expired then
			for i, l := range listeners {
				want := 0
				if i == at {
					want = 1
				}
				if l.Sessions() != want {
					t.Errorf("exit %d has %d sessions while %d serves", i, l.Sessions(), at)
				}
			}
			open, err := link.DialContext(ctx, "tcp", "open:80")
			if err != nil {
				t.Fatal(err)
			}
			stops[at]()
			gone[at] = true
			if n, err := open.Read(make([]byte, 1)); err == nil {
				t.Errorf("a flow gave %d bytes after the end of its exit", n)
			}
			open.Close()
		}
		for i, l := range listeners {
			if l.Sessions() != 0 {
				t.Errorf("exit %d has %d sessions after its end", i, l.Sessions())
			}
		}
	})
}

// replica serves an exit that says its number to every flow and keeps it open.
func replica(t *testing.T, opts nostrlink.HubOptions, key envelope.SecretKey, number int) (l *nostrlink.Listener, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	hub := nostrlink.NewHub(opts)
	l = hub.NewListener(key, []string{inMemory}, nostrlink.ListenerOptions{Ready: func(string) { close(ready) }})
	var wg sync.WaitGroup
	wg.Go(func() {
		l.Serve(ctx, func(ctx context.Context, req nostrlink.Request) {
			conn, err := req.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if req.Address() != "open:80" {
				fmt.Fprintln(conn, number)
				return
			}
			<-ctx.Done()
		})
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); hub.Close() })
	t.Cleanup(stop)
	<-ready
	return l, stop
}

// served is the number of the replica that serves a link, once one does.
func served(t *testing.T, link *nostrlink.Link) (number int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		var conn net.Conn
		conn, err := link.DialContext(ctx, "tcp", "who:80")
		if err == nil {
			_, err = fmt.Fscanln(conn, &number)
			conn.Close()
		}
		if err == nil {
			return number
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
}
