package dnsintercept

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxPending bounds the queries in flight on one link, maxBatch how much
	// of them is written at once.
	maxPending  = 1024
	maxBatch    = 16 << 10
	dialTimeout = 10 * time.Second
)

var (
	errLinkLost = errors.New("dnsintercept: the connection to the exit's resolver ended")
	errTooMany  = fmt.Errorf("dnsintercept: more than %d queries are waiting for the exit's resolver", maxPending)
)

// Upstream answers the queries that are not ours. query and the answer are whole
// DNS messages without framing; the answer's ID is of no importance. query is
// borrowed until Exchange returns, the answer is the caller's. Exchange is
// called concurrently and ends when ctx does.
type Upstream interface {
	Exchange(ctx context.Context, query []byte) (answer []byte, err error)
}

// StreamUpstream is an Upstream over one stream, as DNS over TCP (RFC 7766):
// many queries under way, answers in any order. It is dialled at the first
// query and again after it died; a query that dies with it is sent once more.
type StreamUpstream struct {
	dial   func(ctx context.Context) (net.Conn, error)
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	current *link
	opening *opening // a dial under way, or nil
	closed  bool
}

// opening is a dial that any number of queries wait for.
type opening struct {
	done chan struct{}
	link *link
	err  error
}

// NewStreamUpstream makes an Upstream that reaches its server by dial, which
// has 10 s each time.
func NewStreamUpstream(dial func(ctx context.Context) (net.Conn, error)) *StreamUpstream {
	ctx, cancel := context.WithCancel(context.Background())
	return &StreamUpstream{dial: dial, ctx: ctx, cancel: cancel}
}

// Close ends the stream and all queries on it, and waits for its goroutines.
func (u *StreamUpstream) Close() error {
	u.mu.Lock()
	u.closed = true
	u.cancel()
	if u.current != nil {
		u.current.fail(net.ErrClosed)
	}
	u.mu.Unlock()
	u.wg.Wait()
	return nil
}

// Exchange sends query and waits for its answer, see Upstream.
func (u *StreamUpstream) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	if len(query) < headerLen || len(query) > maxMsg {
		return nil, errors.New("dnsintercept: not a DNS message")
	}
	for attempt := 1; ; attempt++ {
		l, err := u.get(ctx)
		if err != nil {
			return nil, err
		}
		answer, err := l.exchange(ctx, query)
		// A server may end an idle stream at any time, also just when a query
		// is on its way.
		if attempt == 1 && errors.Is(err, errLinkLost) && ctx.Err() == nil {
			continue
		}
		return answer, err
	}
}

// get returns a live link, dialling if there is none.
func (u *StreamUpstream) get(ctx context.Context) (*link, error) {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil, fmt.Errorf("dnsintercept: upstream: %w", net.ErrClosed)
	}
	if u.current != nil && u.current.alive() {
		defer u.mu.Unlock()
		return u.current, nil
	}
	o := u.opening
	if o == nil {
		o = &opening{done: make(chan struct{})}
		u.opening = o
		u.wg.Go(func() { u.open(o) })
	}
	u.mu.Unlock()
	select {
	case <-o.done:
		return o.link, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// open dials on behalf of all who wait for o.
func (u *StreamUpstream) open(o *opening) {
	ctx, cancel := context.WithTimeout(u.ctx, dialTimeout)
	defer cancel()
	conn, err := u.dial(ctx)

	u.mu.Lock()
	defer u.mu.Unlock()
	defer close(o.done)
	u.opening = nil
	switch {
	case err != nil:
		o.err = fmt.Errorf("dnsintercept: reach the exit's resolver: %w", err)
	case u.closed:
		conn.Close()
		o.err = fmt.Errorf("dnsintercept: upstream: %w", net.ErrClosed)
	default:
		o.link = newLink(conn)
		u.current = o.link
		u.wg.Go(o.link.readLoop)
		u.wg.Go(o.link.writeLoop)
	}
}

// link is one stream to the server, until it dies.
type link struct {
	conn     net.Conn
	out      chan []byte
	received atomic.Uint64 // messages, to tell a slow server from a dead one

	die  sync.Once
	dead chan struct{}
	err  error // why, once dead is closed

	mu      sync.Mutex
	pending map[uint16]chan []byte
	nextID  uint16
}

func newLink(conn net.Conn) *link {
	return &link{
		conn:    conn,
		out:     make(chan []byte, 16),
		dead:    make(chan struct{}),
		pending: make(map[uint16]chan []byte),
	}
}

func (l *link) alive() bool {
	select {
	case <-l.dead:
		return false
	default:
		return true
	}
}

func (l *link) fail(err error) {
	l.die.Do(func() {
		l.err = err
		close(l.dead)
		l.conn.Close()
	})
}

func (l *link) lost() error { return fmt.Errorf("%w: %w", errLinkLost, l.err) }

func (l *link) exchange(ctx context.Context, query []byte) ([]byte, error) {
	id, answer, err := l.register()
	if err != nil {
		return nil, err
	}
	defer l.unregister(id)
	frame := make([]byte, 0, 2+len(query))
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(query)))
	frame = binary.BigEndian.AppendUint16(frame, id)
	frame = append(frame, query[2:]...)

	before := l.received.Load()
	select {
	case l.out <- frame:
		select {
		case msg := <-answer:
			return msg, nil
		case <-l.dead:
			return nil, l.lost()
		case <-ctx.Done():
		}
	case <-l.dead:
		return nil, l.lost()
	case <-ctx.Done():
	}
	// A stream on which nothing at all came back for a query's whole life is
	// as good as dead. The next query tries a new one.
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && l.received.Load() == before {
		l.fail(errors.New("no answer to anything"))
	}
	return nil, ctx.Err()
}

// register reserves a message ID. They go round, so that a late answer rarely
// meets a new query with its number; the question tells them apart then.
func (l *link) register() (uint16, chan []byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPending {
		return 0, nil, errTooMany
	}
	for l.pending[l.nextID] != nil {
		l.nextID++
	}
	id := l.nextID
	l.nextID++
	answer := make(chan []byte, 1)
	l.pending[id] = answer
	return id, answer, nil
}

func (l *link) unregister(id uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, id)
}

// readLoop hands answers to those who wait for them until the stream ends.
func (l *link) readLoop() {
	for {
		msg, err := readFrame(l.conn, maxMsg)
		if err == nil && len(msg) < headerLen {
			err = errors.New("not a DNS message")
		}
		if err != nil {
			l.fail(err)
			return
		}
		l.received.Add(1)
		id := binary.BigEndian.Uint16(msg)
		l.mu.Lock()
		answer := l.pending[id]
		delete(l.pending, id) // a second answer is nobody's
		l.mu.Unlock()
		if answer != nil {
			answer <- msg
		}
	}
}

// writeLoop writes queries, as many at once as are waiting: behind the stream
// every write may cost a message of its own.
func (l *link) writeLoop() {
	var batch []byte
	for {
		select {
		case frame := <-l.out:
			batch = append(batch[:0], frame...)
		case <-l.dead:
			return
		}
	more:
		for len(batch) < maxBatch {
			select {
			case frame := <-l.out:
				batch = append(batch, frame...)
			default:
				break more
			}
		}
		if _, err := l.conn.Write(batch); err != nil {
			l.fail(err)
			return
		}
	}
}

// readFrame reads one message of at most limit bytes, with its length before
// it (RFC 1035, section 4.2.2). No memory is held while there is none.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > limit {
		return nil, fmt.Errorf("dnsintercept: message of %d bytes, at most %d are read", n, limit)
	}
	msg := make([]byte, n)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, fmt.Errorf("dnsintercept: in a message of %d bytes: %w", n, err)
	}
	return msg, nil
}
