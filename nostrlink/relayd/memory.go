package relayd

import (
	"sync"
	"sync/atomic"
	"time"
)

// message is the bytes of a received message. It is shared by the queues of all
// connections it is forwarded to; the last to release it gives it back.
type message struct {
	b      []byte
	refs   atomic.Int32
	memory *memory
}

func (m *message) retain() { m.refs.Add(1) }

// Release gives one reference back.
func (m *message) Release() {
	if m.refs.Add(-1) == 0 {
		m.memory.free(m)
	}
}

// largeBuffer takes the largest usual message: an event and its frame.
const largeBuffer = 66 << 10

// memory counts and reuses the buffers of messages.
type memory struct {
	limit int64
	shed  func() // makes room, eventually
	used  atomic.Int64
	large sync.Pool // of *message with cap(b) == largeBuffer

	mu   sync.Mutex
	room chan struct{} // closed when memory is freed; nil when nobody waits
}

// take returns a buffer to read a message into. It waits while the limit is
// reached, until stop is closed; then it returns nil. Whatever holds memory
// holds it for a bounded time.
func (y *memory) take(stop <-chan struct{}) *message {
	for y.used.Load() >= y.limit {
		y.mu.Lock()
		if y.room == nil {
			y.room = make(chan struct{})
		}
		room := y.room
		y.mu.Unlock()
		if y.used.Load() < y.limit {
			break
		}
		y.shed()
		select {
		case <-room:
		case <-time.After(shedPause):
		case <-stop:
			return nil
		}
	}
	m, _ := y.large.Get().(*message)
	if m == nil {
		m = &message{b: make([]byte, 0, largeBuffer), memory: y}
	}
	m.refs.Store(1)
	y.used.Add(int64(cap(m.b)))
	return m
}

// fit accounts for what reading made of the message's buffer, and moves a small
// message out of a large one: it may wait in a queue for long.
func (y *memory) fit(m *message, read []byte) *message {
	if len(read) > largeBuffer/4 {
		y.used.Add(int64(cap(read) - cap(m.b)))
		m.b = read
		return m
	}
	small := &message{b: append(make([]byte, 0, len(read)), read...), memory: y}
	small.refs.Store(1)
	y.used.Add(int64(cap(small.b)))
	m.Release()
	return small
}

func (y *memory) free(m *message) {
	y.used.Add(-int64(cap(m.b)))
	if cap(m.b) == largeBuffer {
		m.b = m.b[:0]
		y.large.Put(m)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.room != nil {
		close(y.room)
		y.room = nil
	}
}
