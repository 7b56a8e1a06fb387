package reftest

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/nbd-wtf/go-nostr/nip19"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Exit is an exit node of the reference.
type Exit struct {
	Key     envelope.SecretKey
	Relay   Relay
	URL     string                                          // of the relay, which its messages name
	Backend string                                          // host:port behind its .nostr name
	Dial    func(network, address string) (net.Conn, error) // net.Dial by default

	mu      sync.Mutex
	streams map[string]*stream
	locks   map[string]chan struct{} // one token each
	wg      sync.WaitGroup
}

// Serve serves until ctx ends. ready, unless nil, is closed when it can be
// reached.
func (x *Exit) Serve(ctx context.Context, ready chan<- struct{}) error {
	if x.Dial == nil {
		x.Dial = net.Dial
	}
	x.streams, x.locks = make(map[string]*stream), make(map[string]chan struct{})
	f := Filter{To: x.Key.Public(), Since: time.Now().Unix()}
	if err := x.Relay.Subscribe(ctx, f, func(ev *envelope.Event) {
		x.wg.Go(func() { x.process(ctx, ev) })
	}); err != nil {
		return err
	}
	if ready != nil {
		close(ready)
	}
	<-ctx.Done()
	x.wg.Wait()
	return ctx.Err()
}

func (x *Exit) process(ctx context.Context, ev *envelope.Event) {
	m, err := open(x.Key, ev)
	if err != nil {
		return
	}
	if m.Destination = x.destination(m.Destination); m.Destination == "" {
		return
	}
	unlock := x.lock(m.Key)
	defer unlock()
	switch m.Type {
	case wire.TypeConnect:
		x.connect(ctx, ev, m)
	case wire.TypeConnectReverse:
		x.connectReverse(ctx, m)
	case wire.TypeSocks5Response:
		x.mu.Lock()
		s := x.streams[m.Key]
		x.mu.Unlock()
		if s == nil {
			return // it came too early, or the dial has failed
		}
		select {
		case s.events <- ev:
		case <-s.ctx.Done():
		}
	}
}

// destination reads a destination as the reference does, by a list of public
// suffixes: what has no dot has none, and is dropped.
func (x *Exit) destination(text string) string {
	host, _, err := net.SplitHostPort(text)
	if err != nil {
		host = text
	}
	if strings.HasSuffix(host, ".nostr") {
		return x.Backend
	}
	if _, err := netip.ParseAddr(host); err != nil && !strings.Contains(host, ".") {
		return ""
	}
	return text
}

func (x *Exit) lock(key string) (unlock func()) {
	x.mu.Lock()
	l := x.locks[key]
	if l == nil {
		l = make(chan struct{}, 1)
		x.locks[key] = l
	}
	x.mu.Unlock()
	l <- struct{}{}
	return func() { <-l }
}

func (x *Exit) connect(ctx context.Context, ev *envelope.Event, m *wire.Message) {
	dest, err := nip19.EncodeProfile(ev.PubKey.Hex(), []string{x.URL})
	if err != nil {
		return
	}
	s := &stream{
		own: x.Key, peer: ev.PubKey, relay: x.Relay, id: m.Key, dest: dest,
		events: make(chan *envelope.Event), read: make(map[[32]byte]bool),
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	backend, err := x.Dial("tcp", m.Destination)
	if err != nil {
		s.cancel()
		return // and the entry never hears of it
	}
	x.mu.Lock()
	x.streams[m.Key] = s
	x.mu.Unlock()
	x.join(ctx, backend, s)
}

func (x *Exit) connectReverse(ctx context.Context, m *wire.Message) {
	entry, err := x.Dial("tcp", m.EntryPublicAddress)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { entry.Close() })
	if _, err := entry.Write([]byte(m.Key)); err != nil {
		return
	}
	var answer [1]byte
	if _, err := entry.Read(answer[:]); err != nil || answer[0] != 1 {
		return // without closing
	}
	stop()
	backend, err := x.Dial("tcp", m.Destination)
	if err != nil {
		entry.Close()
		return
	}
	x.join(ctx, backend, entry)
}

func (x *Exit) join(ctx context.Context, a, b io.ReadWriteCloser) {
	stop := context.AfterFunc(ctx, func() {
		a.Close()
		b.Close()
	})
	var both sync.WaitGroup
	both.Go(func() { proxy(a, b) })
	both.Go(func() { proxy(b, a) })
	x.wg.Go(func() {
		both.Wait()
		stop()
	})
}
