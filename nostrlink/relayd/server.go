package relayd

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// Server is a relay. It is an http.Handler for all three that a relay's URL
// answers: websockets, its description (NIP-11), and people.
type Server struct {
	keep        Kinds
	names       []string
	behindProxy bool
	log         *slog.Logger
	observe     func(Observation)
	settings    atomic.Pointer[settings]
	changing    sync.Mutex // held while settings are replaced

	index    *index
	store    *store
	memory   memory
	stats    counters
	work     chan *job // events to check
	verifier *envelope.Verifier
	// compiling holds an element for each REQ that is being made ready.
	compiling chan struct{}

	handlers sync.WaitGroup
	workers  sync.WaitGroup
	stop     chan struct{}

	mu      sync.Mutex
	conns   map[*conn]bool
	sources map[source]int // connections of each
	closed  bool
	shed    time.Time // when a connection was last cut for its memory
}

// New returns a running server that keeps events in memory only. Close ends it.
func New(opts Options) *Server {
	s := &Server{
		keep:        opts.Keep,
		names:       opts.Names,
		behindProxy: opts.BehindProxy,
		log:         opts.Log,
		observe:     opts.Observe,
		conns:       make(map[*conn]bool),
		sources:     make(map[source]int),
		work:        make(chan *job, 2*runtime.GOMAXPROCS(0)),
		verifier:    envelope.NewVerifier(knownKeys),
		compiling:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		stop:        make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.keep == nil {
		s.keep = DefaultKinds()
	}
	s.settings.Store(s.newSettings(&opts))
	s.index = newIndex(s.limits().MaxAllValues)
	s.store = newStore(s.limits())
	s.memory.limit = int64(s.limits().MaxMemory)
	s.memory.shed = s.shedLongest
	for range runtime.GOMAXPROCS(0) {
		s.workers.Go(s.verify)
	}
	s.workers.Go(s.watch)
	return s
}

// Open is New for a server that keeps events in the file Options.Path, which it
// makes if need be and which nobody else may use meanwhile. An event is accepted
// once it is on disk.
func Open(opts Options) (*Server, error) {
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openDisk(opts.Path, log)
	if err != nil {
		return nil, err
	}
	s := New(opts)
	if err := s.store.load(d, s.keep, time.Now(), log); err != nil {
		s.Close()
		d.close()
		return nil, fmt.Errorf("database: %s: %w", opts.Path, err)
	}
	return s, nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c := &conn{
		server:    s,
		source:    sourceOf(r, s.behindProxy),
		local:     localAddress(r),
		challenge: newChallenge(),
		jobs:      make(chan *job, pipeline),
		matcher:   matcher{index: s.index},
		subs:      make(map[string]*subscription),
	}
	if why := s.begin(c); why != "" {
		s.stats.refusedConns.Add(1)
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	defer s.end(c)
	socket, err := ws.Accept(w, r, s.limits().MessageTimeout)
	if err != nil {
		return
	}
	s.attach(c, socket)
	s.stats.connected.Add(1)
	s.log.Debug("client connected", "from", r.RemoteAddr)
	c.serve()
	s.log.Debug("client gone", "from", r.RemoteAddr)
}

// localAddress is the address that the client has connected to, if it is known.
func localAddress(r *http.Request) netip.AddrPort {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return netip.AddrPort{}
	}
	local, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return local
}

// begin takes a place for a connection, or says why there is none.
func (s *Server) begin(c *conn) (why string) {
	limits := s.limits()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return closing
	case len(s.conns) >= limits.MaxConnections:
		return "the relay has no room for another connection"
	case c.source.bounded() && s.sources[c.source] >= limits.MaxPerAddress:
		return "the relay has no room for another connection from this address"
	}
	s.conns[c] = false
	s.sources[c.source]++
	s.handlers.Add(1)
	return ""
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
	if s.sources[c.source]--; s.sources[c.source] == 0 {
		delete(s.sources, c.source)
	}
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
// queues, waits until all goroutines have ended, between one and a few seconds
// at most, and releases the file. New clients are refused from its beginning.
// The error says that what was not acknowledged may not be on disk.
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
	if first && s.store.disk != nil {
		return s.store.disk.close()
	}
	return nil
}
