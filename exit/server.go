package exit

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Request is a flow that somebody at the other end wants. Exactly one of
// Accept and Reject is called, once.
type Request interface {
	// Network is "tcp", "udp", "ping" or "dns". A ping flow is echoes: the
	// sequence number of each (2 bytes, big endian) and its payload. A dns flow
	// is a stream of queries to the exit's resolver, framed as DNS over TCP
	// (RFC 7766).
	Network() string
	// Address is the destination, host:port; for ping it is the host alone,
	// and for dns it is empty.
	Address() string
	// Accept tells the other end that its destination is reached and returns
	// the flow: a stream, or for udp and ping one datagram per Read and Write.
	Accept() (net.Conn, error)
	// Reject tells the other end why not, by the code that wire.CodeOf finds.
	Reject(err error)
}

// Config says how a Server works. Everything but Key may be left out.
type Config struct {
	// Key is the exit's own public key: names with it are its services.
	Key [32]byte
	// Policy says what strangers reach beyond them.
	Policy Policy
	// Services are what stands behind the ports of the exit's own name.
	Services map[uint16]Target
	// TLS is for the services that need it; see Target.
	TLS *tls.Config
	// Nameservers resolve names; by default those of /etc/resolv.conf, which
	// is followed when it changes.
	Nameservers []Nameserver
	// MaxFlows bounds the flows open at a time; 0 stands for DefaultMaxFlows.
	MaxFlows int
	// MaxDials bounds how many of them are being dialled; 0 stands for
	// DefaultMaxDials. Who finds it reached waits, at most DialTimeout.
	MaxDials int
	// DialTimeout bounds a dial, lookup included; 0 stands for
	// DefaultDialTimeout.
	DialTimeout time.Duration
	// UDPIdle ends a udp flow in which no datagram passes for so long; 0
	// stands for DefaultUDPIdle. One that has had no answer ends after a
	// minute, and one to port 53 after 20 seconds, if that is sooner.
	UDPIdle time.Duration
	// Limits are what a client may take.
	Limits Limits
	// UsageFile keeps what clients have used of their quotas when the exit ends;
	// "" for nothing. It is read by New and written by SaveUsage and Close.
	UsageFile string
	// Successor says that UsageFile is another Server's still: it is not written
	// before TakeOverUsage.
	Successor bool
	// Log may be nil.
	Log *slog.Logger
}

// What zero in a Config stands for.
const (
	DefaultMaxFlows    = 4096
	DefaultMaxDials    = 512
	DefaultDialTimeout = 10 * time.Second
	DefaultUDPIdle     = 5 * time.Minute // what RFC 4787, REQ-5, recommends
)

// Server serves requests. It has no goroutines of its own: those of a request
// end with its Handle. Close it.
type Server struct {
	key       [32]byte
	gate      atomic.Pointer[gate]
	local     *localNets
	accounts  *accounts
	changing  sync.Mutex // of sites
	sites     atomic.Pointer[map[[32]byte]*site]
	resolver  *resolver
	upstreams []upstream // of the operator's own list

	usage struct { // where it is kept
		sync.Mutex
		file string // or ""
		own  bool   // it may be written
	}

	dialTimeout, udpIdle time.Duration
	log                  *slog.Logger

	flows   chan struct{} // a token per open flow
	dials   chan struct{} // a token per dial
	queries chan struct{} // a token per DNS query until its answer is written
	pings   chan struct{} // a token per flow of echoes

	pingSocket func(netip.Addr) (net.Conn, error) // dialPing, but for tests
	pingDenied sync.Once                          // the operator is told once
	counters
}

// New returns a Server. It fails on a Config that makes no sense, and when the
// machine's own addresses cannot be read.
func New(cfg Config) (*Server, error) {
	s := &Server{
		key:         cfg.Key,
		dialTimeout: cfg.DialTimeout,
		udpIdle:     cfg.UDPIdle,
		log:         cfg.Log,
		queries:     make(chan struct{}, maxQueries),
		pings:       make(chan struct{}, maxPings),
		pingSocket:  dialPing,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.dialTimeout <= 0 {
		s.dialTimeout = DefaultDialTimeout
	}
	if s.udpIdle <= 0 {
		s.udpIdle = DefaultUDPIdle
	}
	s.flows = make(chan struct{}, orDefault(cfg.MaxFlows, DefaultMaxFlows))
	s.dials = make(chan struct{}, orDefault(cfg.MaxDials, DefaultMaxDials))
	if err := cfg.Limits.validate(); err != nil {
		return nil, err
	}
	s.accounts = newAccounts(cfg.Limits, time.Now)
	var err error
	if cfg.UsageFile != "" {
		if s.accounts.used, err = loadUsage(cfg.UsageFile); err != nil {
			return nil, err
		}
		s.usage.file, s.usage.own = cfg.UsageFile, !cfg.Successor
	}
	if cfg.Successor {
		s.accounts.late = newUsage()
	} else if s.usage.own {
		removeUsageTemps(s.usage.file)
	}
	if s.local, err = newLocalNets(interfacePrefixes, s.log); err != nil {
		return nil, err
	}
	if err := s.SetPolicy(cfg.Policy); err != nil {
		return nil, err
	}
	s.sites.Store(new(map[[32]byte]*site))
	if err := s.SetSite(Site{cfg.Key, cfg.Services, cfg.TLS}); err != nil {
		return nil, err
	}
	s.resolver = &resolver{servers: (&resolvConf{path: resolvConfPath}).get, try: tryTimeout, cache: newDNSCache()}
	s.resolver.watch.log = s.log
	if len(cfg.Nameservers) > 0 {
		for _, n := range cfg.Nameservers {
			s.upstreams = append(s.upstreams, newUpstream(n, nil))
		}
		s.resolver.servers = fixedServers(s.upstreams)
	}
	return s, nil
}

// SetPolicy has p decide about all requests from now on. Flows that are open
// stay open. On an error the old policy stays. It is safe for concurrent use.
func (s *Server) SetPolicy(p Policy) error {
	g, err := newGate(p, s.local)
	if err != nil {
		return err
	}
	s.gate.Store(g)
	return nil
}

func orDefault(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// Handle serves one request and returns when its flow has ended. The end of
// ctx ends the flow. It is safe for concurrent use.
func (s *Server) Handle(ctx context.Context, req Request) { s.HandleFor(ctx, s.key, req) }

// handle is Handle for a request that came to a name.
func (s *Server) handle(ctx context.Context, to *site, req Request) {
	select {
	case s.flows <- struct{}{}:
		defer func() { <-s.flows }()
	default:
		s.reject(req, refuse(ReasonBusy, "the exit has too many flows open: try again later"))
		return
	}
	account, err := s.accounts.open(clientOf(req))
	if err != nil {
		s.reject(req, err)
		return
	}
	defer account.close()
	req = &booked{req, account, to}
	switch network := req.Network(); network {
	case "tcp", "udp":
		s.forward(ctx, req)
	case "ping":
		s.servePing(ctx, req)
	case "dns":
		s.serveDNS(ctx, req)
	default:
		s.reject(req, refuse(ReasonNetwork, "the exit does not know this network"))
	}
}

// forward dials the request's destination and joins the two.
func (s *Server) forward(ctx context.Context, req Request) {
	d, err := parseDestination(req.Address())
	var svc *service
	if err == nil && d.exit != nil {
		svc, err = s.siteOf(req).service(req.Network(), d)
	}
	if err == nil && svc != nil && svc.HTTP != "" {
		s.serveWeb(ctx, req, svc)
		return
	}
	var out net.Conn
	switch {
	case err != nil:
	case svc != nil:
		out, err = s.reach(ctx, func(ctx context.Context) (net.Conn, error) { return s.dialService(ctx, svc, d.port) })
	default:
		out, err = s.reachOut(ctx, wishOf(req, d), d)
	}
	if err != nil {
		s.rejectAt(ctx, req, err)
		return
	}
	s.join(ctx, req, out, func(in net.Conn) (splice.Stats, error) {
		if req.Network() == "udp" {
			return s.carryDatagrams(in, out, d.port)
		}
		s.tcpFlows.Add(1)
		if svc != nil {
			return s.carryService(ctx, req, svc, in, out)
		}
		return splice.Join(in, out)
	})
}

// join accepts a request and carries its flow. out is what was dialled for it,
// or nil.
func (s *Server) join(ctx context.Context, req Request, out net.Conn, carry func(in net.Conn) (splice.Stats, error)) {
	in, err := req.Accept()
	if err != nil { // the other end has given up meanwhile
		if out != nil {
			splice.Abort(out, err)
		}
		return
	}
	if b, ok := req.(*booked); ok {
		in = newMeter(ctx, b.account, req.Network(), in)
	}
	stop := context.AfterFunc(ctx, func() {
		gone := &wire.Error{Code: wire.CodeGoingAway, Text: "the exit ends the flow"}
		splice.Abort(in, gone)
		if out != nil {
			splice.Abort(out, gone)
		}
	})
	defer stop()
	carried, err := carry(in)
	s.sent.Add(carried.AToB)
	s.received.Add(carried.BToA)
	s.log.Debug("exit: flow ended", "network", req.Network(), "destination", req.Address(),
		"sent", carried.AToB, "received", carried.BToA, "err", err)
}

// client is who asks: the key, and whether it is an identity that was proven
// rather than one made up for the session. The zero client is unknown.
type client struct {
	key    [32]byte
	proven bool
}

func clientOf(req Request) client {
	known, ok := req.(interface{ Client() ([32]byte, bool) })
	if !ok {
		return client{}
	}
	key, proven := known.Client()
	return client{key, proven}
}

// wishOf is what the rules are asked about a request for d.
func wishOf(req Request, d destination) wish {
	q := wish{network: req.Network(), host: d.host, port: d.port}
	if c := clientOf(req); c.proven {
		q.client = &c.key
	}
	return q
}

// reachOut dials d, which is none of the exit's own names, within the bounds on
// dials.
func (s *Server) reachOut(ctx context.Context, q wish, d destination) (net.Conn, error) {
	return s.reach(ctx, func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, q, d) })
}

// reach dials within the bounds on dials.
func (s *Server) reach(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.dialTimeout)
	defer cancel()
	select {
	case s.dials <- struct{}{}:
		defer func() { <-s.dials }()
	case <-ctx.Done():
		return nil, refuse(ReasonBusy, "the exit has too many connections to make: try again later")
	}
	return dial(ctx)
}

// DialBack connects to what an entry says is its own address, under the same
// policy and bounds as a request's destination. Names of exits are refused. Its
// errors are *Refusals.
func (s *Server) DialBack(ctx context.Context, network, address string) (net.Conn, error) {
	d, err := parseDestination(address)
	switch {
	case err != nil:
		return nil, err
	case d.exit != nil:
		return nil, refuse(ReasonNoService, "an entry's address is no service")
	}
	return s.reachOut(ctx, wish{network: network, host: d.host, port: d.port}, d)
}

// rejectAt rejects for err, or because the session has ended.
func (s *Server) rejectAt(ctx context.Context, req Request, err error) {
	if ctx.Err() != nil {
		err = refuse(ReasonCancelled, "the session has ended")
	}
	s.reject(req, err)
}

func (s *Server) reject(req Request, err error) {
	reason := reasonOf(err)
	s.refused[reason].Add(1)
	if b, ok := req.(*booked); ok {
		b.account.refusedFor(reason)
	}
	s.log.Debug("exit: refused", "network", req.Network(), "destination", req.Address(), "reason", reason.String(), "err", withCause(err))
	req.Reject(err)
}

// Close lets go of connections that were kept, to name servers and to services.
// It is called once every Handle has returned.
func (s *Server) Close() error {
	for _, site := range *s.sites.Load() {
		site.rest(nil)
	}
	for _, u := range s.upstreams {
		u.close()
	}
	return s.SaveUsage()
}

// SetLimits has l hold from now on. Flows that are open go on under it.
func (s *Server) SetLimits(l Limits) error {
	if err := l.validate(); err != nil {
		return err
	}
	s.accounts.setLimits(l)
	return nil
}

// Stats returns what the Server has done since New.
func (s *Server) Stats() Stats {
	st := Stats{
		OpenFlows: len(s.flows), Dialling: len(s.dials),
		TCPFlows: s.tcpFlows.Load(), UDPFlows: s.udpFlows.Load(), DNSFlows: s.dnsFlows.Load(), PingFlows: s.pingFlows.Load(),
		Queries: s.asked.Load(), QueriesFailed: s.unanswered.Load(),
		BytesSent: s.sent.Load(), BytesReceived: s.received.Load(),
		Refused: make(map[Reason]int64),
	}
	for r := range reasons {
		if n := s.refused[r].Load(); n > 0 {
			st.Refused[r] = n
		}
	}
	return st
}
