package envelope

import "sync"

// Opener opens payloads under one key, in a goroutine of its own, so that
// whoever receives them can go on receiving. It opens two together when two are
// there, which is faster than one after the other.
type Opener struct {
	key     ConversationKey
	deliver func(plaintext []byte)
	queue   chan *sealed
	closing sync.Once
	closed  chan struct{}
}

// openerQueue is how many payloads may wait.
const openerQueue = 8

// openings are what payloads are decoded into. They are pooled, so that an idle
// Opener holds none.
var openings = sync.Pool{New: func() any { return new(sealed) }}

// NewOpener returns an Opener that hands every plaintext to deliver, in the
// order of Open, one at a time. deliver borrows it until it returns. Close must
// be called.
func NewOpener(key ConversationKey, deliver func(plaintext []byte)) *Opener {
	o := &Opener{key: key, deliver: deliver, queue: make(chan *sealed, openerQueue), closed: make(chan struct{})}
	go o.run()
	return o
}

// Open takes a payload, as the function of that name does, and waits while too
// many are under way. content is borrowed until it returns. An error says that
// it is not a payload; what turns out later not to be sealed under the key is
// dropped without a word, as is everything after Close. It may be called
// concurrently.
func (o *Opener) Open(content []byte) error {
	s := openings.Get().(*sealed)
	if err := s.read(s.dst[:0], content, o.key); err != nil {
		s.forget()
		return err
	}
	select {
	case o.queue <- s:
	case <-o.closed:
		s.forget()
	}
	return nil
}

// Close ends the Opener. It does not wait for deliver and may be called from
// there, at any time, and more than once.
func (o *Opener) Close() { o.closing.Do(func() { close(o.closed) }) }

func (o *Opener) run() {
	for {
		select {
		case s := <-o.queue:
			o.open(s)
		case <-o.closed:
			for {
				select {
				case s := <-o.queue:
					s.forget()
				default:
					return
				}
			}
		}
	}
}

// open opens s, and the next one if it is there.
func (o *Opener) open(s *sealed) {
	var next *sealed
	select {
	case next = <-o.queue:
	default:
		o.done(s, s.open(keyedHash(&s.keys.mac, s.hashed())))
		return
	}
	err, nextErr := openBoth(s, next)
	o.done(s, err)
	o.done(next, nextErr)
}

func (o *Opener) done(s *sealed, err error) {
	if err == nil {
		o.deliver(s.dst)
	}
	s.forget()
}

// forget gives s back for another payload.
func (s *sealed) forget() {
	s.keys = messageKeys{}
	openings.Put(s)
}
