package session

// maxUnanswered bounds how many packets a first hop may leave unanswered
// before the oldest are forgotten.
const maxUnanswered = 4096

// firstHop is what a path knows of the relay next to it: which of the packets
// handed over that has yet to answer. Packets have an index here, the number of
// Sends before theirs.
type firstHop struct {
	answers bool     // it has answered once; a hop that never does is not waited for
	base    uint64   // the index of numbers[0]
	numbers []uint64 // packet numbers plus one; 0 once answered
	waiting int      // how many are not 0
}

// sent notes that the next index belongs to packet number n.
func (h *firstHop) sent(n uint64) {
	if len(h.numbers) == maxUnanswered {
		h.settle(h.base)
	}
	h.numbers = append(h.numbers, n+1)
	h.waiting++
}

// settle takes an answer and gives the number of the packet it is about. It
// reports false when the index was answered before or is unknown.
func (h *firstHop) settle(index uint64) (n uint64, ok bool) {
	i := index - h.base
	if i >= uint64(len(h.numbers)) || h.numbers[i] == 0 {
		return 0, false
	}
	n = h.numbers[i] - 1
	h.numbers[i] = 0
	h.waiting--
	for len(h.numbers) > 0 && h.numbers[0] == 0 {
		h.numbers = h.numbers[1:]
		h.base++
	}
	if len(h.numbers) == 0 {
		h.numbers = nil
	}
	return n, true
}

// next is the index of the packet that comes next.
func (h *firstHop) next() uint64 { return h.base + uint64(len(h.numbers)) }

// forget gives up waiting for answers: the packets have arrived.
func (h *firstHop) forget() {
	h.base += uint64(len(h.numbers))
	h.numbers, h.waiting = nil, 0
}
