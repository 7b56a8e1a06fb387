package nostrlink

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/direct"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

// road is how a direct path is dialed. It can be closed, for connections that
// exist too, and it can take traffic and bring none.
type road struct {
	mu    sync.Mutex
	moved sync.Cond
	shut  bool
	stuck bool
	conns []net.Conn
	dials int
}

func newRoad() *road {
	r := new(road)
	r.moved.L = &r.mu
	return r
}

func (r *road) dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials++
	if r.shut {
		return nil, errors.New("no way")
	}
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	r.conns = append(r.conns, c)
	return &roadConn{Conn: c, road: r}, nil
}

// set opens or closes the road, or has it stick.
func (r *road) set(shut, stuck bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut, r.stuck = shut, stuck
	if shut {
		for _, c := range r.conns {
			c.Close()
		}
		r.conns = nil
	}
	r.moved.Broadcast()
}

type roadConn struct {
	net.Conn
	road   *road
	closed bool // guarded by road.mu
}

func (c *roadConn) wait() {
	c.road.mu.Lock()
	defer c.road.mu.Unlock()
	for c.road.stuck && !c.closed {
		c.road.moved.Wait()
	}
}

func (c *roadConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wait()
	return n, err
}

func (c *roadConn) Write(p []byte) (int, error) {
	c.wait()
	return c.Conn.Write(p)
}

func (c *roadConn) Close() error {
	c.road.mu.Lock()
	c.closed = true
	c.road.moved.Broadcast()
	c.road.mu.Unlock()
	return c.Conn.Close()
}

// directPair is an entry and an exit, with a relay between them and a road
// beside it.
type directPair struct {
	*road
	t        *testing.T
	link     *Link
	listener *Listener
	doors    *direct.Listener
	dialer   *direct.Dialer
	relay    *httptest.Server
}

// newDirectPair starts both; who is the end that listens.
func newDirectPair(t *testing.T, who direct.End) *directPair {
	p := &directPair{road: newRoad(), t: t}
	server := relayd.New(relayd.Options{})
	p.relay = httptest.NewServer(server)
	t.Cleanup(func() { server.Close(); p.relay.Close() })
	relay := "ws" + strings.TrimPrefix(p.relay.URL, "http")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.doors = direct.NewListener(tcp, tcp.Addr().String())
	p.dialer = direct.NewDialer(p.dial)
	var near, far Direct
	if near.Listener, far.Dialer = p.doors, p.dialer; who == direct.Exit {
		near, far = Direct{Dialer: p.dialer}, Direct{Listener: p.doors}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	key, ready := newKey(t), make(chan struct{})
	entry, exit := NewHub(HubOptions{}), NewHub(HubOptions{})
	p.listener = exit.NewListener(key, []string{relay}, ListenerOptions{Direct: far, Ready: func(string) { close(ready) }})
	p.link = entry.NewLink(key.Public(), []string{relay}, LinkOptions{Direct: near, Mode: SessionOnly})
	p.link.set(Connecting, nil, nil)
	serving.Go(func() { p.doors.Serve(ctx) })
	serving.Go(func() { p.listener.Serve(ctx, echo) })
	<-ready
	serving.Go(func() { p.link.Serve(ctx) })
	t.Cleanup(func() {
		p.set(true, false)
		cancel()
		serving.Wait()
		entry.Close()
		exit.Close()
	})
	return p
}

// carrying reports whether the entry sends directly, or over relays.
func (p *directPair) carrying() (direct, relays bool) {
	for _, r := range p.link.Status().Relays {
		if r.State == RelayCarrying && r.Path.Active {
			if strings.HasPrefix(r.URL, "tls://") {
				direct = true
			} else {
				relays = true
			}
		}
	}
	return direct, relays
}

func (p *directPair) await(direct bool) {
	p.t.Helper()
	await.That(p.t, "the path is another", func() bool {
		d, r := p.carrying()
		return d == direct && r != direct
	})
}

// river is a flow that is echoed without end, both ways at full speed.
type river struct {
	t     *testing.T
	moved atomic.Int64 // bytes that came back
	stop  chan struct{}
	all   sync.WaitGroup
}

func startRiver(t *testing.T, link *Link) *river {
	conn, err := link.DialContext(patience(t), "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	r := &river{t: t, stop: make(chan struct{})}
	sent, got := sha256.New(), sha256.New()
	r.all.Go(func() {
		block := make([]byte, 64<<10)
		for {
			select {
			case <-r.stop:
				conn.(splice.Conn).CloseWrite()
				return
			default:
			}
			rand.Read(block)
			sent.Write(block)
			if _, err := conn.Write(block); err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
	})
	r.all.Go(func() {
		defer conn.Close()
		block := make([]byte, 64<<10)
		for {
			n, err := conn.Read(block)
			got.Write(block[:n])
			r.moved.Add(int64(n))
			if err == nil {
				continue
			}
			if err != io.EOF || !slices.Equal(got.Sum(nil), sent.Sum(nil)) {
				t.Errorf("after %d bytes: %v, or not what was sent", r.moved.Load(), err)
			}
			return
		}
	})
	t.Cleanup(r.end)
	return r
}

// flows waits until some more has come back.
func (r *river) flows() {
	r.t.Helper()
	goal := r.moved.Load() + 4<<20
	await.That(r.t, "data flows", func() bool { return r.moved.Load() >= goal })
}

func (r *river) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	r.all.Wait()
}

// TestDirectPath: a flow moves from the relay to the direct path and back, as
// that comes, breaks, comes again, sticks, and is all there is; nothing is lost.
// Either end may be the one that listens.
func TestDirectPath(t *testing.T) {
	for who, name := range []string{direct.Entry: "entry listens", direct.Exit: "exit listens"} {
		t.Run(name, func(t *testing.T) {
			p := newDirectPair(t, direct.End(who))
			p.set(true, false)
			if err := p.link.Connect(patience(t)); err != nil {
				t.Fatal(err)
			}
			r := startRiver(t, p.link)
			p.await(false)
			r.flows()
			p.set(false, false)
			p.await(true)
			r.flows()
			p.set(true, false) // broken
			p.await(false)
			r.flows()
			p.set(false, false)
			p.await(true)
			p.set(false, true) // stuck
			p.await(false)
			r.flows()
			p.set(false, false)
			p.await(true)
			p.relay.CloseClientConnections()
			p.relay.Close()
			r.flows()
			r.end()
			if n := p.doors.Stats().Taken; n < 2 {
				t.Errorf("%d connections were taken", n)
			}
		})
	}
}

// TestDirectIsForThePeerOnly: strangers who learn the address and those who only
// greet get nothing out of it.
func TestDirectIsForThePeerOnly(t *testing.T) {
	p := newDirectPair(t, direct.Entry)
	if err := p.link.Connect(patience(t)); err != nil {
		t.Fatal(err)
	}
	p.await(true)
	var secret direct.Secret
	rand.Read(secret[:])
	for _, s := range p.link.Status().Relays {
		address, isDirect := strings.CutPrefix(s.URL, "tls://")
		if !isDirect {
			continue
		}
		if c, err := p.dialer.Dial(patience(t), address, secret, direct.Exit); err == nil {
			c.Close()
			t.Error("a stranger is taken for the exit")
		}
	}
	await.That(t, "the stranger is counted", func() bool { return p.doors.Stats().Refused > 0 })
	if n := p.doors.Stats().Refused; n != 1 {
		t.Errorf("%d strangers were refused", n)
	}
	if d, _ := p.carrying(); !d {
		t.Error("the stranger has ended the path")
	}
}

// TestGreetingMakesNobodyDial: an exit dials when the session is used, not for
// a greeting, which anybody can send.
func TestGreetingMakesNobodyDial(t *testing.T) {
	relay, key, r := startRelay(t), newKey(t), newRoad()
	ctx, cancel := context.WithCancel(context.Background())
	hub, ready := NewHub(HubOptions{}), make(chan struct{})
	l := hub.NewListener(key, []string{relay}, ListenerOptions{
		Direct: Direct{Dialer: direct.NewDialer(r.dial)}, Ready: func(string) { close(ready) },
	})
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(ctx, echo) })
	defer func() { cancel(); serving.Wait(); hub.Close() }()
	<-ready
	g, err := newGreeting(key.Public(), wishes{direct: []string{"127.0.0.1:9"}})
	if err != nil {
		t.Fatal(err)
	}
	event, id, err := g.event(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.Publish(patience(t), []string{relay}, event, id); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the session is open", func() bool { return l.Sessions() == 1 })
	cancel()
	serving.Wait()
	if r.dials > 0 {
		t.Error("the exit has dialed")
	}
}

// TestDirectSecrets: both ends derive the same secret, which is not the key.
func TestDirectSecrets(t *testing.T) {
	a, b := newKey(t), newKey(t)
	near, err := envelope.Conversation(a, b.Public())
	if err != nil {
		t.Fatal(err)
	}
	far, err := envelope.Conversation(b, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	if near.Derive("x") != far.Derive("x") || near.Derive("x") == near.Derive("y") || near.Derive("x") == [32]byte{} {
		t.Error("the secrets do not fit")
	}
	if (envelope.ConversationKey{}).Derive("x") != [32]byte{} {
		t.Error("no key makes a secret")
	}
}

// TestDirectPathAlone: a session whose relays have turned it away outlives a break
// of its direct path, for a while.
func TestDirectPathAlone(t *testing.T) {
	for name, back := range map[string]bool{"it comes back": true, "it stays away": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBundle(nil, newKey(t).Public(), slog.New(slog.DiscardHandler))
				defer b.cancel()
				d := &directTrack{bundle: b, state: RelayCarrying, path: new(session.Path)}
				b.directs = []*directTrack{d}
				relay := &track{bundle: b}
				b.tracks["wss://relay.example"] = relay
				relay.note(RelayRetired, errors.New("blocked: not you"))
				for range 2 {
					d.lose(time.Now())
					d.note(RelayConnecting, errFellSilent)
					time.Sleep(directGrace - time.Second)
				}
				select {
				case <-b.abandoned:
					t.Fatal("the session is given up at once")
				default:
				}
				if back {
					d.mu.Lock()
					d.state, d.path = RelayCarrying, new(session.Path)
					d.mu.Unlock()
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				select {
				case <-b.abandoned:
					if back {
						t.Error("the session is given up although it has a path")
					}
				default:
					if !back {
						t.Error("the session is not given up")
					}
				}
			})
		})
	}
}
