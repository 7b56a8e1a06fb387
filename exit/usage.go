package exit

import "time"

// usage is how many bytes clients have used in this day and this month. It has
// no lock of its own.
type usage struct {
	month   string // as 2006-01
	clients map[[32]byte]*used
	changed bool
}

type used struct {
	Day   string `json:"day"` // the last one with bytes, as 2006-01-02
	Bytes int64  `json:"bytes"`
	Month int64  `json:"month"` // bytes
}

// maxUsage bounds the clients whose bytes are kept; what others use counts
// together.
const maxUsage = 100_000

// others is the key of those for whom there is no room.
var others [32]byte

func newUsage() *usage { return &usage{clients: make(map[[32]byte]*used)} }

// turn begins a month anew.
func (u *usage) turn(now time.Time) {
	if m := now.UTC().Format("2006-01"); m != u.month {
		u.month = m
		clear(u.clients)
		u.changed = true
	}
}

// of returns what a client has used today and this month.
func (u *usage) of(key [32]byte, now time.Time) (day, month int64) {
	u.turn(now)
	c := u.clients[key]
	if c == nil && len(u.clients) >= maxUsage {
		c = u.clients[others]
	}
	if c == nil {
		return 0, 0
	}
	if c.Day == now.UTC().Format(time.DateOnly) {
		day = c.Bytes
	}
	return day, c.Month
}

// add enters n bytes.
func (u *usage) add(key [32]byte, n int64, now time.Time) {
	u.enter(key, used{now.UTC().Format(time.DateOnly), n, n}, now)
}

// merge enters what others says. What is of another month is forgotten.
func (u *usage) merge(others *usage, now time.Time) {
	u.turn(now)
	if others.month != u.month {
		return
	}
	for key, c := range others.clients {
		u.enter(key, *c, now)
	}
}

func (u *usage) enter(key [32]byte, more used, now time.Time) {
	u.turn(now)
	c := u.clients[key]
	if c == nil && len(u.clients) >= maxUsage {
		key = others
		c = u.clients[key]
	}
	if c == nil {
		c = new(used)
		u.clients[key] = c
	}
	if c.Day < more.Day {
		c.Day, c.Bytes = more.Day, 0
	}
	if c.Day == more.Day {
		c.Bytes += more.Bytes
	}
	c.Month += more.Month
	u.changed = true
}
