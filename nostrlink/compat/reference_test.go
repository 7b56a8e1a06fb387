package compat

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat/reftest"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// station is one key of ours at a relay.
type station struct {
	keys  *Keys
	relay reftest.Relay
}

func (s station) Send(ctx context.Context, to envelope.PublicKey, plaintext []byte) error {
	event, id, err := s.keys.Seal(to, plaintext, time.Now())
	if err != nil {
		return err
	}
	// The reference subscribes while it publishes: what is answered faster finds
	// nobody who listens yet, and is offered again.
	for {
		err := s.relay.Publish(ctx, event, id)
		if err == nil || !strings.Contains(err.Error(), "mute:") {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// listen hands what arrives for the station to receive until the test ends.
func (s station) listen(t *testing.T, key envelope.SecretKey, receive func(Incoming)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	f := reftest.Filter{To: key.Public(), Since: time.Now().Unix()}
	if err := s.relay.Subscribe(ctx, f, func(ev *envelope.Event) {
		in, err := s.keys.Open(ev)
		if err != nil {
			t.Error(err)
			return
		}
		receive(in)
	}); err != nil {
		t.Fatal(err)
	}
}

// ourEntry is an Entry at a relay.
func ourEntry(t *testing.T, r reftest.Relay, exit envelope.PublicKey, opts EntryOptions) *Entry {
	key := envelopetest.NewKey(t)
	s := station{NewKeys(key, 10), r}
	e := NewEntry(exit, s, opts)
	s.listen(t, key, e.Receive)
	t.Cleanup(func() { e.Close() })
	return e
}

// ourExit is an Exit at a relay, every request to which reaches what dial
// returns.
func ourExit(t *testing.T, r reftest.Relay, opts ExitOptions, dial func(address string) (net.Conn, error)) (*Exit, envelope.PublicKey) {
	key := envelopetest.NewKey(t)
	s := station{NewKeys(key, 10), r}
	e := NewExit(s, opts)
	s.listen(t, key, e.Receive)
	serve(t, func(ctx context.Context) error {
		for {
			req, err := e.Accept(ctx)
			if err != nil {
				return err
			}
			out, err := dial(req.Address())
			if err != nil {
				req.Reject(err)
				continue
			}
			in, err := req.Accept()
			if err != nil {
				out.Close()
				continue
			}
			go splice.Join(in, out)
		}
	})
	t.Cleanup(func() { e.Close() })
	return e, key.Public()
}

// refExit is the scripted exit at a relay.
func refExit(t *testing.T, x *reftest.Exit) envelope.PublicKey {
	x.Key = envelopetest.NewKey(t)
	ready := make(chan struct{})
	serve(t, func(ctx context.Context) error { return x.Serve(ctx, ready) })
	<-ready
	return x.Key.Public()
}

func newBus(t *testing.T, opts reftest.BusOptions) *reftest.Bus {
	bus := reftest.NewBus(opts)
	t.Cleanup(bus.Close)
	return bus
}

// service is what stands behind an exit: it reads size bytes, then writes them
// back, in one go, and keeps the connection.
func service(size int) net.Conn {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		b := make([]byte, size)
		if _, err := io.ReadFull(theirs, b); err != nil {
			return
		}
		theirs.Write(b)
		io.Copy(io.Discard, theirs)
	}()
	return ours
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{})
	r.Read(b)
	return b
}

// ask sends data and wants it back.
func ask(t *testing.T, conn net.Conn, data []byte) {
	t.Helper()
	go conn.Write(data)
	if got := readFull(t, conn, len(data)); !bytes.Equal([]byte(got), data) {
		t.Error("what came back is not what was sent")
	}
}

var relays = map[string]reftest.BusOptions{
	"in order":                {OK: time.Millisecond},
	"in sorted batches":       {OK: time.Millisecond, Batch: 100 * time.Millisecond, MaxEvent: 65536},
	"far away, and in order":  {OK: 80 * time.Millisecond},
	"far away and in batches": {OK: 80 * time.Millisecond, Batch: 100 * time.Millisecond, MaxEvent: 65536},
}

func TestOurEntryThroughReferenceExit(t *testing.T) {
	for name, opts := range relays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				size := 400 << 10
				if opts.Batch > 0 {
					size = 20 << 10 // what the reference sends comes in any order
				}
				bus := newBus(t, opts)
				var dialed string
				exit := refExit(t, &reftest.Exit{Relay: bus, URL: "ws://bus", Backend: "backend:1", Dial: func(_, address string) (net.Conn, error) {
					dialed = address
					return service(size), nil
				}})
				e := ourEntry(t, bus, exit, EntryOptions{})
				for address, want := range map[string]string{
					"example.org:80": "example.org:80",
					hostOf(exit, "wss://relay.example") + ":80": "backend:1",
					strings.ToUpper(hostOf(exit)) + ":443":      "backend:1",
				} {
					conn, err := e.DialContext(context.Background(), "tcp", address)
					if err != nil {
						t.Fatal(err)
					}
					ask(t, conn, randomBytes(size))
					conn.Close()
					if dialed != want {
						t.Errorf("%s: dialed %s", address, dialed)
					}
				}
			})
		})
	}
}

func hostOf(key envelope.PublicKey, relays ...string) string {
	return name.Name{Key: key, Relays: relays}.Host()
}

// A destination that refuses shows as silence, and nothing else does.
func TestReferenceExitThatCannotConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t, reftest.BusOptions{OK: time.Millisecond})
		exit := refExit(t, &reftest.Exit{Relay: bus, Dial: func(string, string) (net.Conn, error) { return nil, io.EOF }})
		e := ourEntry(t, bus, exit, EntryOptions{})
		conn, err := e.DialEarly(context.Background(), "tcp", "example.org:80", []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "nothing came back") {
			t.Errorf("%v", err)
		}
	})
}

// The banner of a server that speaks first is lost between two reference ends,
// not when the entry is ours.
func TestServerSpeaksFirst(t *testing.T) {
	greet := func(string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go theirs.Write([]byte("220 ready"))
		return ours, nil
	}
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t, reftest.BusOptions{OK: time.Millisecond})
		exit := refExit(t, &reftest.Exit{Relay: bus, URL: "ws://bus", Dial: greet})
		conn, err := ourEntry(t, bus, exit, EntryOptions{}).DialContext(context.Background(), "tcp", "example.org:25")
		if err != nil {
			t.Fatal(err)
		}
		if got := readFull(t, conn, 9); got != "220 ready" {
			t.Errorf("read %q", got)
		}
		conn.Close()
	})
}

func TestReferenceEntryThroughOurExit(t *testing.T) {
	for name, opts := range relays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				size := 200 << 10
				if opts.Batch > 0 {
					size = 20 << 10 // what the reference sends comes in any order
				}
				bus := newBus(t, opts)
				var dialed string
				exit, key := ourExit(t, bus, ExitOptions{}, func(address string) (net.Conn, error) {
					dialed = address
					return service(size), nil
				})
				n := &reftest.Entry{Exit: key, Relay: bus}
				for address, want := range map[string]string{
					"192.0.2.1:80": "192.0.2.1:80",
					hostOf(key):    hostOf(key),
				} {
					conn, err := n.Dial(address)
					if err != nil {
						t.Fatal(err)
					}
					data := randomBytes(size)
					go io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, 32<<10))
					// As the reference reads: with a buffer that has the room.
					var got []byte
					for buf := make([]byte, 32<<10); len(got) < len(data); {
						m, err := conn.Read(buf)
						if err != nil {
							t.Fatalf("after %d bytes: %v", len(got), err)
						}
						got = append(got, buf[:m]...)
					}
					if !bytes.Equal(got, data) {
						t.Error("what came back is not what was sent")
					}
					if dialed != want {
						t.Errorf("%s: dialed %s", address, dialed)
					}
					conn.Close()
				}
				time.Sleep(DefaultIdle + time.Second)
				if s := exit.Stats(); s.Streams != 0 || s.TimedOut != 2 || s.Buffered != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// An exit that writes while nobody is left to read stops when it has heard
// nothing for long.
func TestReferenceEntryDiesMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t, reftest.BusOptions{OK: time.Millisecond})
		exit, key := ourExit(t, bus, ExitOptions{}, func(string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				for b := make([]byte, 100); ; time.Sleep(time.Second) {
					if _, err := theirs.Write(b); err != nil {
						return
					}
				}
			}()
			return ours, nil
		})
		conn, err := (&reftest.Entry{Exit: key, Relay: bus}).Dial("192.0.2.1:80")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		write(t, conn, "GET /stream")
		n, err := io.Copy(io.Discard, conn)
		if lived := time.Since(start).Round(time.Second); lived != reftest.Lifetime || n < 700 || err == nil {
			t.Errorf("%d bytes in %v, %v", n, lived, err)
		}
		time.Sleep(DefaultSilence)
		if s := exit.Stats(); s.Streams != 0 || s.TimedOut != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestConnectRWithReferenceEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t, reftest.BusOptions{OK: time.Millisecond})
		l := newPipeListener()
		opts := ExitOptions{DialBack: func(_ context.Context, _, address string) (net.Conn, error) {
			if address != "9.9.9.9:4443" {
				t.Errorf("connects back to %s", address)
			}
			return l.dial(), nil
		}}
		exit, key := ourExit(t, bus, opts, func(string) (net.Conn, error) { return service(100 << 10), nil })
		n := &reftest.Entry{Exit: key, Relay: bus, Listener: l, PublicAddress: "9.9.9.9:4443"}
		serve(t, n.Serve)
		conn, err := n.Dial("192.0.2.1:80")
		if err != nil {
			t.Fatal(err)
		}
		ask(t, conn, randomBytes(100<<10))
		conn.Close()
		if s := exit.Stats(); s.Reversed != 1 || s.Opened != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestConnectRWithReferenceExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t, reftest.BusOptions{OK: time.Millisecond})
		l := newPipeListener()
		reverse := NewReverseListener(l, "9.9.9.9:4443")
		serve(t, reverse.Serve)
		exit := refExit(t, &reftest.Exit{Relay: bus, Backend: "backend:1", Dial: func(_, address string) (net.Conn, error) {
			if address == "9.9.9.9:4443" {
				return l.dial(), nil
			}
			return service(100 << 10), nil
		}})
		e := ourEntry(t, bus, exit, EntryOptions{Reverse: reverse})
		conn, err := e.DialContext(context.Background(), "tcp", hostOf(exit)+":80")
		if err != nil {
			t.Fatal(err)
		}
		ask(t, conn, randomBytes(100<<10))
		conn.Close()
		if s := e.Stats(); s.Reversed != 1 || s.Opened != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Ours through ours, and a relay that repeats everything.
func TestOurEntryThroughOurExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t, reftest.BusOptions{OK: time.Millisecond})
		exit, key := ourExit(t, twice{bus}, ExitOptions{}, func(string) (net.Conn, error) { return service(100 << 10), nil })
		e := ourEntry(t, twice{bus}, key, EntryOptions{})
		conn, err := e.DialContext(context.Background(), "tcp", "example.org:80")
		if err != nil {
			t.Fatal(err)
		}
		ask(t, conn, randomBytes(100<<10))
		conn.Close()
		if a, b := e.Stats(), exit.Stats(); a.Repeated == 0 || b.Repeated == 0 || a.BytesReceived != 100<<10 || b.BytesReceived != 100<<10 {
			t.Errorf("%+v\n%+v", a, b)
		}
	})
}

// twice is a relay that delivers each event twice.
type twice struct{ reftest.Relay }

func (r twice) Subscribe(ctx context.Context, f reftest.Filter, deliver func(*envelope.Event)) error {
	return r.Relay.Subscribe(ctx, f, func(ev *envelope.Event) {
		deliver(ev)
		deliver(ev)
	})
}

// An exit.Server takes what an Exit accepts.
var _ exit.Request = (*Request)(nil)

// A program that speaks SOCKS5 to the scripted entry reaches the exit's own
// service, over a relay on the network, and what the exit's policy allows.
func TestHTTPThroughReferenceEntry(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello, "+r.URL.Path)
	}))
	defer web.Close()
	address := strings.TrimPrefix(web.URL, "http://")
	server := relayd.New(relayd.Options{})
	defer server.Close()
	front := httptest.NewServer(server)
	defer front.Close()

	key := envelopetest.NewKey(t)
	s := station{NewKeys(key, 10), dialRelay(t, front.URL)}
	e := NewExit(s, ExitOptions{})
	defer e.Close()
	s.listen(t, key, e.Receive)
	service, err := exit.ParseTarget(address)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := exit.New(exit.Config{Key: key.Public(), Services: map[uint16]exit.Target{80: service}})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) error {
		for {
			req, err := e.Accept(ctx)
			if err != nil {
				return err
			}
			go policy.Handle(ctx, req)
		}
	})

	n := &reftest.Entry{Exit: key.Public(), Relay: dialRelay(t, front.URL)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) error { return n.ServeSOCKS(ctx, l) })
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5", Host: l.Addr().String()})}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	resp, err := client.Get("http://" + hostOf(key.Public()) + "/there")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "hello, /there" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := n.Dial(address); err != nil { // as a stranger may not
		t.Fatal(err)
	}
	await.That(t, "the stranger is refused", func() bool { return e.Stats().Refused > 0 })
	if st := policy.Stats(); st.Refused[exit.ReasonSpecial] != 1 || st.TCPFlows != 1 {
		t.Errorf("%+v", st)
	}
}

func dialRelay(t *testing.T, url string) reftest.Relay {
	t.Helper()
	w, err := reftest.Dial("ws"+strings.TrimPrefix(url, "http"), relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}
