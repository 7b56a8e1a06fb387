package relayd

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip11"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// Server is a relay. It is an http.Handler for all three that a relay's URL
// answers: websockets, its description (NIP-11), and people.
type Server struct {
	limits  Limits
	rate    Rate
	log     *slog.Logger
	observe func(Observation)
	info    []byte

	index    *index
	store    *store
	memory   memory
	stats    counters
	work     chan *job // events to verify
	verifier *envelope.Verifier
	// compiling holds an element for each REQ that is being made ready.
	compiling chan struct{}

	handlers sync.WaitGroup
	workers  sync.WaitGroup
	stop     chan struct{}

	mu     sync.Mutex
	conns  map[*conn]bool
	closed bool
	shed   time.Time // when a connection was last cut for its memory
}

type counters struct {
	subscriptions                 atomic.Int64
	accepted, refused             atomic.Uint64
	forwarded, dropped            atomic.Uint64
	bytesIn, bytesOut             atomic.Uint64
	slow, refusedConns, connected atomic.Uint64
}

// Stats is what the server has done and holds.
type Stats struct {
	Connections   int    // open
	Connected     uint64 // since the start
	Turned        uint64 // away, because of MaxConnections
	Subscriptions int
	Accepted      uint64 // events
	Refused       uint64 // events
	Forwarded     uint64 // events, counted for each subscriber
	Dropped       uint64 // messages for which a client's queue had no room in time
	BytesIn       uint64 // of messages
	BytesOut      uint64 // of events forwarded
	Slow          uint64 // connections cut because they read too slowly
	Memory        int64  // bytes of messages held
	Stored        int    // events
	StoredBytes   int
}

// New returns a running server. Close ends it.
func New(opts Options) *Server {
	s := &Server{
		limits:    opts.Limits.withDefaults(),
		rate:      opts.Rate,
		log:       opts.Log,
		observe:   opts.Observe,
		conns:     make(map[*conn]bool),
		work:      make(chan *job, 2*runtime.GOMAXPROCS(0)),
		verifier:  envelope.NewVerifier(knownKeys),
		compiling: make(chan struct{}, runtime.GOMAXPROCS(0)),
		stop:      make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.index = newIndex(s.limits.MaxAllValues)
	s.store = newStore(s.limits.MaxStored, s.limits.MaxStoredBytes)
	s.memory.limit = int64(s.limits.MaxMemory)
	s.memory.shed = s.shedLongest
	s.info = s.describe(opts)
	for range runtime.GOMAXPROCS(0) {
		s.workers.Go(s.verify)
	}
	s.workers.Go(s.watch)
	return s
}

// knownKeys is how many authors are verified faster than others. Those who send
// much are few.
const knownKeys = 256

// verify is a worker. When there is more than one event to verify it takes two
// together, which is faster than one after the other.
func (s *Server) verify() {
	for j := range s.work {
		select {
		case k, ok := <-s.work:
			if ok {
				j.verdict, k.verdict = s.verifier.VerifyBoth(&j.event, &k.event)
				close(j.ready)
				close(k.ready)
				continue
			}
		default:
		}
		j.verdict = s.verifier.Verify(&j.event)
		close(j.ready)
	}
}

func (s *Server) describe(opts Options) []byte {
	name := opts.Name
	if name == "" {
		name = "nws-vpn relay"
	}
	b, err := json.Marshal(nip11.Info{
		Name:          name,
		Description:   opts.Description,
		SupportedNIPs: []int{1, 11, 40},
		Software:      "https://github.com/nws-vpn/nws-vpn",
		Version:       opts.Version,
		Limitation: nip11.Limitation{
			MaxMessageLength:    s.limits.MaxMessage,
			MaxSubscriptions:    s.limits.MaxSubscriptions,
			MaxFilters:          s.limits.MaxFilters,
			MaxLimit:            s.limits.MaxLimit,
			MaxSubIDLength:      nip01.MaxSubscriptionID,
			MaxContentLength:    s.limits.MaxEvent,
			CreatedAtUpperLimit: int64(s.limits.MaxAhead / time.Second),
		},
	})
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

// ServeHTTP answers a websocket handshake and serves the connection until it
// ends; it answers other requests with the relay's description, as NIP-11 has
// it to those who accept application/nostr+json.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	switch {
	case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		s.serve(w, r)
	case r.Method == http.MethodOptions:
		header.Set("Access-Control-Allow-Headers", "*")
		header.Set("Access-Control-Allow-Methods", "GET, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "this is a Nostr relay: connect with a websocket", http.StatusMethodNotAllowed)
	case strings.Contains(r.Header.Get("Accept"), nip11.ContentType):
		header.Set("Content-Type", nip11.ContentType)
		w.Write(s.info)
	default:
		header.Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "This is a Nostr relay. Connect to it with a Nostr client.")
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c := &conn{
		server:  s,
		jobs:    make(chan *job, pipeline),
		matcher: matcher{index: s.index},
		subs:    make(map[string]*subscription),
	}
	if !s.begin(c) {
		s.stats.refusedConns.Add(1)
		http.Error(w, "the relay has no room for another connection", http.StatusServiceUnavailable)
		return
	}
	defer s.end(c)
	socket, err := ws.Accept(w, r, s.limits.MessageTimeout)
	if err != nil {
		return
	}
	s.attach(c, socket)
	s.stats.connected.Add(1)
	s.log.Debug("client connected", "from", r.RemoteAddr)
	var sequencer sync.WaitGroup
	sequencer.Go(c.sequence)
	c.read()
	c.ws.CloseNow() // free the queue: the sequencer may be waiting for room in it
	sequencer.Wait()
	s.log.Debug("client gone", "from", r.RemoteAddr)
}

// begin takes a place for a connection.
func (s *Server) begin(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= s.limits.MaxConnections {
		return false
	}
	s.conns[c] = false
	s.handlers.Add(1)
	return true
}

// attach gives the connection its websocket. The value in conns tells that it
// has one.
func (s *Server) attach(c *conn, socket *ws.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.ws = socket
	s.conns[c] = true
	if s.closed {
		socket.Finish(ws.StatusGoingAway, closing)
	}
}

func (s *Server) end(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.handlers.Done()
}

// attached lists the connections that have a websocket.
func (s *Server) attached() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.conns))
	for c, ok := range s.conns {
		if ok {
			list = append(list, c)
		}
	}
	return list
}

const closing = "the relay is closing"

// Close tells the clients that the relay goes away, sends what is in their
// queues, and waits until all goroutines have ended: between one and a few
// seconds at most. New clients are refused from its beginning.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.stop)
	}
	for _, c := range s.attached() {
		c.ws.Finish(ws.StatusGoingAway, closing)
	}
	s.handlers.Wait()
	if first {
		close(s.work)
	}
	s.workers.Wait()
	return nil
}

// Stats returns the present figures.
func (s *Server) Stats() Stats {
	events, bytes := s.store.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Connections:   len(s.conns),
		Connected:     s.stats.connected.Load(),
		Turned:        s.stats.refusedConns.Load(),
		Subscriptions: int(s.stats.subscriptions.Load()),
		Accepted:      s.stats.accepted.Load(),
		Refused:       s.stats.refused.Load(),
		Forwarded:     s.stats.forwarded.Load(),
		Dropped:       s.stats.dropped.Load(),
		BytesIn:       s.stats.bytesIn.Load(),
		BytesOut:      s.stats.bytesOut.Load(),
		Slow:          s.stats.slow.Load(),
		Memory:        s.memory.used.Load(),
		Stored:        events,
		StoredBytes:   bytes,
	}
}

// acceptable checks what can be told of an event without its signature.
func (s *Server) acceptable(j *job) error {
	e, now := &j.event, time.Now()
	class := classOf(e.Kind)
	age := now.Sub(time.Unix(e.CreatedAt, 0))
	expires := expiration(e)
	switch {
	case len(j.parsed.Event) > s.limits.MaxEvent:
		return refusal(fmt.Sprintf("invalid: event is larger than %d bytes", s.limits.MaxEvent))
	case class == regular:
		return refusal(fmt.Sprintf("blocked: kind %d would have to be stored; this relay forwards ephemeral events and keeps replaceable ones", e.Kind))
	case age < -s.limits.MaxAhead:
		return refusal("invalid: created_at is too far in the future; is the clock right?")
	case class == ephemeral && age > s.limits.MaxAge:
		return refusal("invalid: created_at is too far in the past for an ephemeral event; is the clock right?")
	case expires != 0 && expires <= now.Unix():
		return refusal("invalid: the event has expired")
	}
	return nil
}

var (
	errSilent = errors.New("relayd: the client is silent and does not answer pings")
	errMemory = errors.New("relayd: the relay needs the memory of the longest queue")
)

// watch finds clients that are gone without having said so.
func (s *Server) watch() {
	tick := min(s.limits.PingAfter, s.limits.PongTimeout) / 4
	ticker := time.NewTicker(max(tick, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		for _, c := range s.attached() {
			idle := c.ws.Idle()
			switch {
			case c.asked.IsZero() && idle >= s.limits.PingAfter:
				c.ws.Ping()
				c.asked = time.Now()
			case !c.asked.IsZero() && idle <= time.Since(c.asked):
				c.asked = time.Time{}
			case !c.asked.IsZero() && time.Since(c.asked) >= s.limits.PongTimeout:
				c.ws.Fail(errSilent)
			}
		}
	}
}

// shedLongest cuts the connection whose queue is the longest, but not one after
// the other before the first can have had an effect.
func (s *Server) shedLongest() {
	s.mu.Lock()
	if time.Since(s.shed) < shedPause {
		s.mu.Unlock()
		return
	}
	s.shed = time.Now()
	s.mu.Unlock()
	var longest *conn
	most := 0
	for _, c := range s.attached() {
		if n, _ := c.ws.Queued(); n > most {
			longest, most = c, n
		}
	}
	if longest != nil {
		s.stats.slow.Add(1)
		s.log.Warn("out of memory for messages, cutting the longest queue", "bytes", most)
		longest.ws.Fail(errMemory)
	}
}

const shedPause = 50 * time.Millisecond
