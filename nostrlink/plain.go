package nostrlink

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

// plain is a link's way to an exit without a session: NWS as written, under a
// throw-away key.
type plain struct {
	entry    *compat.Entry
	exit     envelope.PublicKey
	arrivals *arrivals
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	tried    chan struct{} // takes one: something is new in errs

	mu    sync.Mutex
	errs  map[string]error // by the URLs of the relays that were tried: nil for those in ready
	ready []*post          // that pass on what comes for us
	heard *post            // that brought the last message
}

// newPlain begins to listen over the link's relays, and offers reverse to the
// exit, unless it is nil. Close it.
func (l *Link) newPlain(reverse *compat.ReverseListener) (*plain, error) {
	if len(l.relays) == 0 {
		return nil, errNoRelay
	}
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		return nil, err
	}
	p := &plain{
		exit: l.exit, arrivals: newArrivals(key, 1),
		tried: make(chan struct{}, 1), errs: make(map[string]error),
	}
	p.entry = compat.NewEntry(l.exit, &courier{keys: p.arrivals.keys, via: p.via}, compat.EntryOptions{
		Options:  compat.Options{Gap: p.gap, Limit: p.limit, Log: l.opts.Log},
		Resolver: l.opts.Resolver,
		Reverse:  reverse,
	})
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	for _, url := range l.relays {
		p.wg.Go(func() { p.listen(ctx, l.hub, url, key.Public()) })
	}
	p.wg.Go(func() { p.arrivals.serve(ctx, p.take) })
	return p, nil
}

func (p *plain) close() {
	p.entry.Close()
	p.cancel()
	p.wg.Wait()
}

// listen has a relay pass on what comes for us until ctx ends.
func (p *plain) listen(ctx context.Context, hub *Hub, url string, key envelope.PublicKey) {
	post, err := hub.acquire(url)
	if err != nil {
		p.note(url, nil, err)
		return
	}
	defer hub.release(post)
	box := post.add(key, func(ev *envelope.Event, raw []byte) {
		if ev.PubKey != p.exit {
			return
		}
		if lost, err := p.arrivals.put(post, ev, raw, p.entry.Knows); errors.Is(err, errLost) {
			p.entry.Lost(lost)
		}
	})
	defer box.close()
	for retry := minRetry; ; retry = min(2*retry, maxRetry) {
		if err = post.connect(ctx); err == nil {
			err = post.confirm(ctx, box)
		}
		if ctx.Err() != nil {
			return
		}
		p.note(url, post, err)
		if err == nil {
			break
		}
		sleep(ctx, retry)
	}
	<-ctx.Done()
}

// note takes down how an attempt to be listened for at a relay has ended.
func (p *plain) note(url string, post *post, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs[url] = err
	if err == nil {
		p.ready = append(p.ready, post)
	}
	select {
	case p.tried <- struct{}{}:
	default:
	}
}

// othersToo is how long the first relay that works waits for the others: the
// exit may be on one of those only.
const othersToo = 2 * time.Second

// wait returns when every relay was tried, or a first one works and the others
// had time. It fails when none works.
func (p *plain) wait(ctx context.Context, relays int) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var enough <-chan time.Time
	for {
		p.mu.Lock()
		tried, ready := len(p.errs), len(p.ready)
		p.mu.Unlock()
		switch {
		case tried == relays && ready > 0:
			return nil
		case tried == relays:
			return p.problem()
		case ready > 0 && enough == nil:
			enough = time.After(othersToo)
		}
		select {
		case <-p.tried:
		case <-enough:
			return nil
		case <-ctx.Done():
			return errors.Join(p.problem(), ctx.Err())
		}
	}
}

func (p *plain) problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var said []string
	for _, err := range p.errs {
		if err != nil {
			said = append(said, err.Error())
		}
	}
	if len(said) == 0 {
		return nil
	}
	slices.Sort(said)
	return errors.New(strings.Join(said, "; "))
}

func (p *plain) take(post *post, in compat.Incoming, err error) {
	if err != nil || in.From != p.exit {
		return
	}
	p.mu.Lock()
	p.heard = post
	p.mu.Unlock()
	p.entry.Receive(in)
}

// via implements the courier's: the relay over which the exit was heard last,
// or, as long as nobody knows where it listens, all of them.
func (p *plain) via(envelope.PublicKey) []*post {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heard != nil && p.heard.connected() {
		return []*post{p.heard}
	}
	var posts []*post
	for _, post := range p.ready {
		if post.connected() {
			posts = append(posts, post)
		}
	}
	return posts
}

func (p *plain) gap(peer envelope.PublicKey) time.Duration {
	longest := compat.ShortGap
	for _, post := range p.via(peer) {
		longest = max(longest, post.gap())
	}
	return longest
}

// limit is the longest message that all relays take over which it goes.
func (p *plain) limit(peer envelope.PublicKey) int {
	least := 0
	for _, post := range p.via(peer) {
		if n := post.maxMessage(); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// DialContext implements dialer.
func (p *plain) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.entry.DialContext(ctx, network, address)
	if err != nil || network != "dns" {
		return conn, err
	}
	return newFleeting(conn, resolverIdle), nil
}

// DialEarly implements dialer.
func (p *plain) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	return p.entry.DialEarly(ctx, network, address, first)
}

// resolverIdle is less than what resolvers leave an idle connection open. That
// they close it cannot be told here, and queries on it would not be answered.
const resolverIdle = 4 * time.Second

// fleeting is a connection that is closed when nothing has passed for a while.
type fleeting struct {
	net.Conn
	idle  time.Duration
	timer *time.Timer
}

func newFleeting(conn net.Conn, idle time.Duration) *fleeting {
	return &fleeting{conn, idle, time.AfterFunc(idle, func() { conn.Close() })}
}

func (f *fleeting) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	f.timer.Reset(f.idle)
	return n, err
}

func (f *fleeting) Write(b []byte) (int, error) {
	f.timer.Reset(f.idle)
	return f.Conn.Write(b)
}

func (f *fleeting) Close() error {
	f.timer.Stop()
	return f.Conn.Close()
}

// status describes the relays, and names the one in use.
func (p *plain) status() (relay string, all []RelayStatus) {
	used := p.via(p.exit)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(used) > 0 {
		relay = used[0].url
	}
	for url, err := range p.errs {
		s := RelayStatus{URL: url, Err: err}
		for _, post := range p.ready {
			if post.url != url {
				continue
			}
			s.Pace = post.client.Status().Pace
			if post.connected() {
				s.State = RelayCarrying
				s.Path = session.PathStats{Active: slices.Contains(used, post)}
			}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y RelayStatus) int { return strings.Compare(x.URL, y.URL) })
	return relay, all
}

// answerTime is how long an exit may take to bring a resolver's answer.
const answerTime = 5 * time.Second

// rootQuery asks for the name servers of the root, as DNS over TCP.
const rootQuery = "\x00\x11nw\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"

// answers reports whether something comes back through the exit: the protocol
// has no other sign of life.
func (p *plain) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	conn, err := p.entry.DialEarly(ctx, "dns", "", []byte(rootQuery))
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}
