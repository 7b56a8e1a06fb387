package session

import "time"

// windowed is an extreme over a sliding window of time, kept as the extremes
// of the current and the previous half of it.
type windowed[T int64 | time.Duration] struct {
	cur, prev T
	curSet    bool
	prevSet   bool
	since     time.Duration
}

// add takes a sample; better reports whether its first argument replaces its
// second. half is half the window.
func (w *windowed[T]) add(now, half time.Duration, v T, better func(a, b T) bool) {
	if w.curSet && now-w.since > half {
		w.prev, w.prevSet = w.cur, true
		w.curSet = false
	}
	if !w.curSet {
		w.cur, w.curSet, w.since = v, true, now
	} else if better(v, w.cur) {
		w.cur = v
	}
}

// get is the extreme; ok is false before the first sample.
func (w *windowed[T]) get(better func(a, b T) bool) (v T, ok bool) {
	switch {
	case w.curSet && w.prevSet && better(w.prev, w.cur):
		return w.prev, true
	case w.curSet:
		return w.cur, true
	default:
		return w.prev, w.prevSet
	}
}

func more[T int64 | time.Duration](a, b T) bool { return a > b }
