package relaytest

import (
	"context"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Options are the settings of a Relay. The zero value works.
type Options struct {
	Behaviour Behaviour
	// Seed of the choices by chance.
	Seed uint64
	// InMemory listens on no socket: clients connect with Relay.DialContext.
	InMemory bool
	// OnMessage is called with each text message of each connection before it
	// is acted upon, also with those that will not be answered. It may be
	// called concurrently for different connections.
	OnMessage func(msg []byte)
	// MaxEvent is the largest event taken in bytes; zero for 65,536.
	MaxEvent int
}

// Relay is a running relay. Its methods may be called concurrently.
type Relay struct {
	opts     Options
	url      string
	listener net.Listener
	memory   *Listener // or nil
	server   http.Server
	serving  sync.WaitGroup

	mu        sync.Mutex
	behaviour Behaviour
	rand      *rand.Rand
	conns     map[*conn]bool
	accepted  int
	kept      []event
	published int
	faked     int
	closed    bool
}

// New starts a relay that ends with the test.
func New(tb testing.TB, opts Options) *Relay {
	tb.Helper()
	if opts.MaxEvent <= 0 {
		opts.MaxEvent = 65536
	}
	r := &Relay{
		opts:      opts,
		behaviour: opts.Behaviour,
		rand:      rand.New(rand.NewPCG(opts.Seed, 0x6e6f737472)),
		conns:     make(map[*conn]bool),
	}
	if opts.InMemory {
		r.memory = NewListener()
		r.listener = r.memory
		r.url = "ws://relay.test"
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatalf("relaytest: %v", err)
		}
		r.listener = l
		r.url = "ws://" + l.Addr().String()
	}
	r.server.Handler = http.HandlerFunc(r.serve)
	r.server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, networkKey{}, c)
	}
	r.server.ErrorLog = log.New(io.Discard, "", 0)
	r.serving.Go(func() { r.server.Serve(r.listener) })
	tb.Cleanup(r.Close)
	return r
}

// URL is the relay's ws:// URL.
func (r *Relay) URL() string { return r.url }

// DialContext connects to the relay whatever the address is; for the options of
// a client. In memory it is the only way.
func (r *Relay) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if r.memory != nil {
		return r.memory.DialContext(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", r.listener.Addr().String())
}

// Set changes the behaviour. Deaf, NoPong, Greeting and Auth are looked at when
// a connection begins.
func (r *Relay) Set(b Behaviour) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behaviour = b
}

func (r *Relay) now() Behaviour {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.behaviour
}

// Cut drops all connections without a farewell. New ones are accepted.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.cut()
	}
	clear(r.conns)
}

// Send sends a text message, whatever it holds, to every connection at once.
func (r *Relay) Send(msg string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.deliver(time.Now(), []byte(msg), false)
	}
}

// SendBytes writes bytes, which need not be a websocket frame, to the network
// under every connection.
func (r *Relay) SendBytes(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.raw = append(c.raw, b...)
		c.nudge()
	}
}

// networkKey is where a request's context holds its net.Conn.
type networkKey struct{}

// Inject delivers an event to the subscriptions that it matches as if somebody
// had published it.
func (r *Relay) Inject(raw []byte) error {
	e, err := parse(raw)
	if err != nil {
		return err
	}
	r.route(e)
	return nil
}

// Connections is how many websockets are open, and how many have been accepted
// since the beginning.
func (r *Relay) Connections() (open, accepted int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns), r.accepted
}

// Published is how many events have been published, refused ones included.
func (r *Relay) Published() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.published
}

// Faked is how many deliveries of events that an attack made up were scheduled.
func (r *Relay) Faked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faked
}

// Subscriptions is how many are open on all connections together.
func (r *Relay) Subscriptions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for c := range r.conns {
		n += len(c.subs)
	}
	return n
}

// Close ends the relay and waits for its goroutines. It is called at the end of
// the test.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.server.Close()
	r.Cut()
	r.serving.Wait()
}

// begin counts a handler in, so that Close waits for it: the server does not
// wait for connections that have become websockets.
func (r *Relay) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.serving.Add(1)
	return true
}

func (r *Relay) serve(w http.ResponseWriter, req *http.Request) {
	if !r.begin() {
		return
	}
	defer r.serving.Done()
	b := r.now()
	if b.NoHandshake {
		<-req.Context().Done() // the connection's end
		return
	}
	if b.Status != 0 {
		http.Error(w, "refused by the test", b.Status)
		return
	}
	ws, err := websocket.Accept(w, req, &websocket.AcceptOptions{
		InsecureSkipVerify: true,
		OnPingReceived:     func(context.Context, []byte) bool { return !b.NoPong },
	})
	if err != nil {
		return
	}
	ws.SetReadLimit(-1)
	c := newConn(r, ws, b)
	c.network, _ = req.Context().Value(networkKey{}).(net.Conn)
	r.mu.Lock()
	if r.closed {
		c.cut()
	}
	r.conns[c] = true
	r.accepted++
	r.mu.Unlock()
	c.run(b)
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
}
