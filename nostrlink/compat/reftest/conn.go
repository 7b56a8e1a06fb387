package reftest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"
	"github.com/nbd-wtf/go-nostr/nip44"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	bufferSize = 32 << 10
	poll       = 100 * time.Millisecond
)

// sortBatch sorts as strfry does what it has collected.
func sortBatch(batch []*envelope.Event) {
	slices.SortFunc(batch, func(a, b *envelope.Event) int {
		if a.CreatedAt != b.CreatedAt {
			return int(a.CreatedAt - b.CreatedAt)
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
}

// stream is one connection, at either end.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	own    envelope.SecretKey
	peer   envelope.PublicKey
	relay  Relay
	id     string
	dest   string // in every message

	mu     sync.Mutex
	events chan *envelope.Event // nil until something is subscribed
	lazy   bool                 // subscribe with the first write
	read   map[[32]byte]bool
}

func (s *stream) channel() chan *envelope.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events
}

var errCancelled = errors.New("reftest: context canceled")

// Read gives the data of the next event, as much as fits b.
func (s *stream) Read(b []byte) (int, error) {
	for {
		select {
		case ev := <-s.channel():
			if s.read[ev.ID] {
				continue
			}
			s.read[ev.ID] = true
			m, err := open(s.own, ev)
			if err != nil {
				return 0, err
			}
			return copy(b, m.Data), nil
		case <-s.ctx.Done():
			return 0, errCancelled
		default:
			time.Sleep(poll)
		}
	}
}

// Write sends one event and waits for its OK.
func (s *stream) Write(b []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, errCancelled
	}
	event, id, err := seal(s.own, s.peer, &wire.Message{Key: s.id, Type: wire.TypeSocks5Response, Destination: s.dest, Data: b})
	if err != nil {
		return 0, err
	}
	s.subscribe()
	if err := s.relay.Publish(s.ctx, event, id); err != nil {
		return 0, err
	}
	return len(b), nil
}

// subscribe asks for events, without waiting for the relay.
func (s *stream) subscribe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lazy {
		return
	}
	s.lazy = false
	events := make(chan *envelope.Event)
	s.events = events
	f := Filter{To: s.own.Public(), Author: s.peer, Since: time.Now().Unix()}
	go s.relay.Subscribe(s.ctx, f, func(ev *envelope.Event) {
		go func() { // so order is luck
			select {
			case events <- ev:
			case <-s.ctx.Done():
			}
		}()
	})
}

// Close tells nobody.
func (s *stream) Close() error {
	s.cancel()
	return nil
}

// proxy copies one way, then closes both.
func proxy(dst io.WriteCloser, src io.ReadCloser) {
	io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, bufferSize))
	if half, ok := dst.(*net.TCPConn); ok {
		half.CloseWrite()
	}
	dst.Close()
	src.Close()
}

// seal makes an event by the library that the reference uses, which also takes
// the 32 KiB that are too long for most relays.
func seal(own envelope.SecretKey, to envelope.PublicKey, m *wire.Message) (event []byte, id [32]byte, err error) {
	plain, err := wire.AppendMessage(nil, m)
	if err != nil {
		return nil, id, err
	}
	_, secret, err := nip19.Decode(own.NSec())
	if err != nil {
		return nil, id, err
	}
	key, err := nip44.GenerateConversationKey(to.Hex(), secret.(string))
	if err != nil {
		return nil, id, err
	}
	ev := nostr.Event{Kind: envelope.KindNWS, CreatedAt: nostr.Timestamp(time.Now().Unix()), Tags: nostr.Tags{{"p", to.Hex()}}}
	if ev.Content, err = nip44.Encrypt(string(plain), key); err != nil {
		return nil, id, err
	}
	if err := ev.Sign(secret.(string)); err != nil {
		return nil, id, err
	}
	if _, err := hex.Decode(id[:], []byte(ev.ID)); err != nil {
		return nil, id, err
	}
	event, err = ev.MarshalJSON()
	return event, id, err
}

func open(own envelope.SecretKey, ev *envelope.Event) (*wire.Message, error) {
	key, err := envelope.Conversation(own, ev.PubKey)
	if err != nil {
		return nil, err
	}
	plain, err := envelope.Open(nil, ev.Content, key)
	if err != nil {
		return nil, err
	}
	return wire.ParseMessage(plain)
}
