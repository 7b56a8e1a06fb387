package relay

import (
	"regexp"
	"slices"
	"time"
)

// outage decides what the log hears of a relay that is away: that it is gone, that
// it is back, once each; and again while it is away when there is a reason that
// was not told yet, or a long time has passed. The zero value is for a relay that
// nobody has heard of.
type outage struct {
	away     bool      // what the log was told last
	unsteady bool      // the last connection did not last
	reasons  []string  // told since the relay was last connected for good
	told     int       // how often without another reason
	next     time.Time // when it is told again
}

// maxReasons bounds the reasons that are told of an outage: a relay may make them
// up.
const maxReasons = 8

// outagePauses are between lines about the same outage; the last one is repeated.
var outagePauses = [...]time.Duration{time.Minute, 10 * time.Minute, time.Hour}

// port is what makes the errors of any two connections differ.
var port = regexp.MustCompile(`:\d+\b`)

// lost reports whether the log is to be told of an attempt or a connection, of
// that length, which err has ended.
func (o *outage) lost(now time.Time, lived time.Duration, err error) bool {
	switch {
	case lived >= stableAfter:
		*o = outage{}
	case lived > 0:
		o.unsteady = true
	}
	reason := port.ReplaceAllString(err.Error(), "")
	isNew := len(o.reasons) < maxReasons && !slices.Contains(o.reasons, reason)
	if o.away && !isNew && now.Before(o.next) {
		return false
	}
	if isNew {
		o.reasons = append(o.reasons, reason)
	}
	if !isNew || !o.away {
		o.told++
	}
	o.away = true
	o.next = now.Add(outagePauses[min(o.told, len(outagePauses))-1])
	return true
}

// connected reports whether the log is to be told of a connection. When the last
// one was short, that has to wait for lasted.
func (o *outage) connected() bool {
	if o.unsteady {
		return false
	}
	o.away = false
	return true
}

// lasted notes that the connection has lasted for stableAfter, and reports whether
// the log is to be told of it now.
func (o *outage) lasted() bool {
	tell := o.away
	*o = outage{}
	return tell
}
