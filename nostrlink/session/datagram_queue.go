package session

// datagramQueues are the queues of a flow.
type datagramQueues struct {
	in, out datagramQueue
	flying  int  // packets on their way with datagrams of the flow
	closing bool // RESET goes once the queue is empty and nothing flies
}

// Bounds of what waits in queues of datagrams. Beyond them the oldest of the
// flow that gets another one is dropped.
const (
	flowDatagramBytes = 256 << 10
	allDatagramBytes  = 16 << 20
	datagramCost      = 64 // what a datagram takes beside its bytes
)

// datagramQueue holds the datagrams of a flow in one direction.
type datagramQueue struct {
	items [][]byte
	bytes int // with datagramCost for each
}

// datagramTotal counts the bytes of all queues of one direction; every change
// of a queue goes through it.
type datagramTotal struct{ bytes int }

// push adds a copy of p to q and reports how many it dropped for it.
func (t *datagramTotal) push(q *datagramQueue, p []byte) (dropped uint64) {
	q.items = append(q.items, append(make([]byte, 0, len(p)), p...))
	q.bytes += len(p) + datagramCost
	t.bytes += len(p) + datagramCost
	for q.bytes > flowDatagramBytes || t.bytes > allDatagramBytes && len(q.items) > 0 {
		t.pop(q)
		dropped++
	}
	return dropped
}

// pop takes the oldest datagram.
func (t *datagramTotal) pop(q *datagramQueue) ([]byte, bool) {
	if len(q.items) == 0 {
		return nil, false
	}
	p := q.items[0]
	q.items[0] = nil
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	q.bytes -= len(p) + datagramCost
	t.bytes -= len(p) + datagramCost
	return p, true
}

// drop empties q.
func (t *datagramTotal) drop(q *datagramQueue) {
	t.bytes -= q.bytes
	*q = datagramQueue{}
}
