package session

// activity says in which of the scheduler's lists a stream is.
type activity uint8

const (
	inactive activity = iota
	fresh             // has had less than its share since it woke: goes first
	bulk              // takes turns
)

// streamList is a queue of streams through their next field.
type streamList struct {
	head, tail *stream
	n          int
}

func (l *streamList) push(s *stream) {
	s.next = nil
	if l.tail == nil {
		l.head = s
	} else {
		l.tail.next = s
	}
	l.tail = s
	l.n++
}

func (l *streamList) pop() *stream {
	s := l.head
	l.head = s.next
	if l.head == nil {
		l.tail = nil
	}
	s.next = nil
	l.n--
	return s
}

// controlList is a queue of streams through their nextCtl field.
type controlList struct {
	head, tail *stream
}

func (l *controlList) push(s *stream) {
	if s.inControl {
		return
	}
	s.inControl, s.nextCtl = true, nil
	if l.tail == nil {
		l.head = s
	} else {
		l.tail.nextCtl = s
	}
	l.tail = s
}

func (l *controlList) pop() *stream {
	s := l.head
	l.head = s.nextCtl
	if l.head == nil {
		l.tail = nil
	}
	s.inControl, s.nextCtl = false, nil
	return s
}

// sentRing finds sent packets by number. It spans the numbers from base up to,
// but not including, next; most of them are nil: acknowledged, forgotten, or
// never tracked.
type sentRing struct {
	slots []*sentPacket // a power of two, or none yet
	base  uint64
	next  uint64
}

// maxTracked is how many packet numbers the ring spans at most.
const maxTracked = 1 << 15

func (r *sentRing) get(n uint64) *sentPacket {
	return r.slots[n&uint64(len(r.slots)-1)]
}

// find gives the packet with number n, or nil when that has been settled.
func (r *sentRing) find(n uint64) *sentPacket {
	if n < r.base || n >= r.next {
		return nil
	}
	return r.get(n)
}

// push enters the packet with the number next, or nil to skip it.
func (r *sentRing) push(p *sentPacket) {
	if r.next-r.base == uint64(len(r.slots)) {
		r.grow()
	}
	r.slots[r.next&uint64(len(r.slots)-1)] = p
	r.next++
	r.trim()
}

// drop forgets a packet.
func (r *sentRing) drop(n uint64) {
	r.slots[n&uint64(len(r.slots)-1)] = nil
	r.trim()
}

func (r *sentRing) trim() {
	for r.base < r.next && r.get(r.base) == nil {
		r.base++
	}
}

func (r *sentRing) grow() {
	slots := make([]*sentPacket, max(64, 2*len(r.slots)))
	for n := r.base; n < r.next; n++ {
		slots[n&uint64(len(slots)-1)] = r.get(n)
	}
	r.slots = slots
}

// full reports that the ring can take no more without forgetting.
func (r *sentRing) full() bool { return r.next-r.base >= maxTracked }
