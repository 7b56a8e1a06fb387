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
