package exit

import (
	"maps"
	"slices"
	"time"
)

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

const (
	// maxUsage bounds the clients whose bytes are kept. Keys are made at will, so who
	// is one too many costs nobody his quota: those who have used least are forgotten.
	maxUsage = 100_000
	// usageRoom is how many of them are at a time, as it takes a look at all.
	usageRoom = maxUsage / 16
)

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
	if c == nil {
		if len(u.clients) >= maxUsage {
			u.makeRoom()
		}
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

// makeRoom forgets usageRoom of those who have used least in this month.
func (u *usage) makeRoom() {
	months := make([]int64, 0, len(u.clients))
	for _, c := range u.clients {
		months = append(months, c.Month)
	}
	slices.Sort(months)
	least := months[usageRoom]
	n := len(u.clients) - usageRoom
	maps.DeleteFunc(u.clients, func(_ [32]byte, c *used) bool { return c.Month < least })
	for key, c := range u.clients {
		if len(u.clients) <= n {
			return
		}
		if c.Month == least {
			delete(u.clients, key)
		}
	}
}
