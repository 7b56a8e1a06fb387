package session

import (
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	// maxReceived bounds the runs of packet numbers kept. Runs are many only
	// when most packets are out of order or lost.
	maxReceived = 1024
	// reports is how often an arrival is reported: acknowledgements get lost
	// too, and are not acknowledged themselves.
	reports = 2
	// repeats is how many of the newest runs every acknowledgement names, news
	// or not.
	repeats = 8
	// ackBytes is how much may come before an acknowledgement goes at once.
	ackBytes = 768 << 10
	// newsLimit is how many runs with news may gather before an
	// acknowledgement goes at once: it holds wire.MaxAckRanges.
	newsLimit = wire.MaxAckRanges - 8
)

// run is a span of received packet numbers and how often it still is to be
// reported.
type run struct {
	lo, hi uint64
	fresh  uint8
}

// received is the replay window and the source of acknowledgements: which
// packet numbers came, and which of them the peer has yet to hear of.
type received struct {
	runs  []run  // sorted, disjoint, not touching
	floor uint64 // everything below counts as received and is not reported

	news       int           // runs with fresh > 0, roughly: since the last report
	newestAt   time.Duration // when the largest number came
	elicited   int           // packets since the last report that ask for one
	elicitedSz int           // their bytes
	firstAt    time.Duration // when the first of them came
}

// seen reports whether n came before, or is too old to tell.
func (r *received) seen(n uint64) bool {
	if n < r.floor {
		return true
	}
	i := r.index(n)
	return i < len(r.runs) && r.runs[i].lo <= n
}

// index is the first run that ends above n.
func (r *received) index(n uint64) int {
	if k := len(r.runs); k == 0 || r.runs[k-1].hi <= n {
		return k
	}
	i, _ := slices.BinarySearchFunc(r.runs, n, func(x run, n uint64) int {
		if x.hi <= n {
			return -1
		}
		return 1
	})
	return i
}

// add notes that packet n came, which seen denied.
func (r *received) add(now time.Duration, n uint64, elicits bool, size int) {
	i := r.index(n)
	if i == len(r.runs) {
		r.newestAt = now
	}
	left := i > 0 && r.runs[i-1].hi == n
	right := i < len(r.runs) && r.runs[i].lo == n+1
	switch {
	case left && right:
		r.runs[i-1].hi = r.runs[i].hi
		r.touch(i - 1)
		r.runs = slices.Delete(r.runs, i, i+1)
	case left:
		r.runs[i-1].hi++
		r.touch(i - 1)
	case right:
		r.runs[i].lo--
		r.touch(i)
	default:
		r.runs = slices.Insert(r.runs, i, run{lo: n, hi: n + 1})
		r.touch(i)
		if len(r.runs) > maxReceived {
			r.floor = r.runs[0].hi
			r.runs = slices.Delete(r.runs, 0, 1)
		}
	}
	if elicits {
		if r.elicited == 0 {
			r.firstAt = now
		}
		r.elicited++
		r.elicitedSz += size
	}
}

func (r *received) touch(i int) {
	if r.runs[i].fresh < reports {
		if r.runs[i].fresh == 0 {
			r.news++
		}
		r.runs[i].fresh = reports
	}
}

// repeat makes the newest runs news again: the report of them may not have
// left.
func (r *received) repeat(now time.Duration) {
	for i := max(0, len(r.runs)-repeats); i < len(r.runs); i++ {
		if r.runs[i].fresh == 0 {
			r.runs[i].fresh = 1
			r.news++
		}
	}
	if r.news > 0 && r.elicited == 0 {
		r.elicited, r.firstAt = 1, now
	}
}

// hasNews reports whether an acknowledgement would tell anything new.
func (r *received) hasNews() bool { return r.news > 0 }

// due is when an acknowledgement must go even alone: at once when enough has
// come, never when nothing asks for it, after delay otherwise: an answer that it
// can ride on may come meanwhile.
func (r *received) due(delay time.Duration) (time.Duration, bool) {
	switch {
	case r.elicited == 0:
		return 0, false
	case r.elicitedSz >= ackBytes || r.news >= newsLimit:
		return r.firstAt, true
	default:
		return r.firstAt + delay, true
	}
}

// report fills ack with the newest runs and all others that have news, newest
// first, as far as they fit, and takes note that they were reported. There must be a run.
func (r *received) report(now time.Duration, ack *wire.Ack) {
	ack.Delay = uint64(max(0, now-r.newestAt) / time.Microsecond)
	ack.Ranges = ack.Ranges[:0]
	r.news, r.elicited, r.elicitedSz = 0, 0, 0
	for i := len(r.runs) - 1; i >= 0; i-- {
		x := &r.runs[i]
		fits := len(ack.Ranges) < wire.MaxAckRanges
		if fits && (x.fresh > 0 || i >= len(r.runs)-repeats) {
			ack.Ranges = append(ack.Ranges, wire.AckRange{Smallest: x.lo, Largest: x.hi - 1})
			x.fresh = max(x.fresh, 1) - 1
		}
		if x.fresh > 0 {
			r.news++
		}
		if x.fresh == reports { // did not fit: the next one comes soon
			r.elicited, r.firstAt = 1, now
		}
	}
}
