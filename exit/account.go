package exit

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// accounts knows what each client uses. It is safe for concurrent use.
type accounts struct {
	now func() time.Time
	// limited says that bytes are to be taken before they pass; else they are only
	// counted. Open flows heed it, too.
	limited atomic.Bool

	mu     sync.Mutex
	limits Limits
	share  *share // or nil
	known  map[client]*account
	quiet  *list.List                     // of *account without a flow, the one that is quiet longest first
	used   *usage                         // of days and months
	late   *usage                         // the part that the process which has the file does not know of; nil when it is this one
	gone   struct{ sent, received int64 } // bytes of those that are known no more
}

// account is one client.
type account struct {
	client
	of    *accounts
	since time.Time

	// Guarded by accounts.mu.
	flows   int
	place   *list.Element // in quiet
	pace    *rate.Limiter // of bytes
	opening *rate.Limiter // of flows
	asking  *rate.Limiter // of DNS queries
	turns   *shareOf      // at accounts.share; nil before it is first asked
	refused map[Reason]int64

	usage *usage // of days and months: all clients', or of an unknown one its own

	sent, received atomic.Int64 // by and for the client
	opened         atomic.Int64 // flows
	queries        atomic.Int64 // of DNS, under way
	spent          atomic.Int64 // bytes not yet in accounts.used
}

func newAccounts(l Limits, now func() time.Time) *accounts {
	a := &accounts{now: now, known: make(map[client]*account), quiet: list.New(), used: newUsage()}
	a.setLimits(l)
	return a
}

// setLimits has l hold from now on, for the clients that are known too.
func (a *accounts) setLimits(l Limits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l.Clients == 0 {
		l.Clients = DefaultClients
	}
	if l.TotalBytesPerSecond != a.limits.TotalBytesPerSecond {
		a.share = nil
		if l.TotalBytesPerSecond > 0 {
			a.share = newShare(l.TotalBytesPerSecond)
		}
		for _, c := range a.known {
			c.turns = nil // who waits at the old one, it still serves
		}
	}
	a.limits = l
	for _, c := range a.known {
		c.limit(l)
	}
	a.limited.Store(l.BytesPerSecond > 0 || l.TotalBytesPerSecond > 0 || l.Day > 0 || l.Month > 0)
}

// limit gives an account its own buckets.
func (c *account) limit(l Limits) {
	c.pace = limiter(float64(l.BytesPerSecond), max(int(l.BytesPerSecond/8), leastBurst))
	c.opening = limiter(float64(l.FlowsPerSecond), 4*l.FlowsPerSecond)
	c.asking = limiter(float64(l.QueriesPerSecond), 4*l.QueriesPerSecond)
}

// limiter returns a bucket, or nil for no bound.
func limiter(perSecond float64, burst int) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}

// open books a new flow of a client, or refuses it. close gives it back.
func (a *accounts) open(who client) (*account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.known[who]
	if c == nil {
		if c = a.admit(who); c == nil {
			return nil, refuse(ReasonBusy, "the exit has too many clients: try again later")
		}
	}
	if err := a.check(c); err != nil {
		c.refuse(reasonOf(err))
		return nil, err
	}
	c.flows++
	c.opened.Add(1)
	if c.place != nil {
		a.quiet.Remove(c.place)
		c.place = nil
	}
	return c, nil
}

// check refuses a flow that is more than a client may have.
func (a *accounts) check(c *account) error {
	now, l := a.now(), &a.limits
	a.settle(c, now)
	switch {
	case l.Flows > 0 && c.flows >= l.Flows:
		return refuse(ReasonLimit, "you have %d flows open, which is all that this exit allows: close some", c.flows)
	case c.opening != nil && !c.opening.AllowN(now, 1):
		return refuse(ReasonLimit, "you open flows faster than the %d a second that this exit allows", l.FlowsPerSecond)
	}
	return a.quota(c, now)
}

// quota refuses who has used up a day's or a month's bytes.
func (a *accounts) quota(c *account, now time.Time) error {
	day, month := c.usage.of(c.key, now)
	switch {
	case a.limits.Day > 0 && day >= a.limits.Day:
		return refuse(ReasonQuota, "you have used up what this exit gives you for a day: it begins anew at midnight UTC")
	case a.limits.Month > 0 && month >= a.limits.Month:
		return refuse(ReasonQuota, "you have used up what this exit gives you for a month: it begins anew on the first, UTC")
	}
	return nil
}

// settle enters what a client has used since the last time.
func (a *accounts) settle(c *account, now time.Time) {
	if n := c.spent.Swap(0); n > 0 {
		c.usage.add(c.key, n, now)
		if a.late != nil && c.usage == a.used {
			a.late.add(c.key, n, now)
		}
	}
}

// admit makes an account; it is nil when there are too many that are in use.
func (a *accounts) admit(who client) *account {
	if len(a.known) >= a.limits.Clients {
		oldest := a.quiet.Front()
		if oldest == nil {
			return nil
		}
		gone := a.quiet.Remove(oldest).(*account)
		a.settle(gone, a.now())
		a.gone.sent += gone.sent.Load()
		a.gone.received += gone.received.Load()
		delete(a.known, gone.client)
	}
	c := &account{client: who, of: a, since: a.now(), refused: make(map[Reason]int64), usage: a.used}
	if !who.proven {
		// Keys that are made up at will would fill what is kept.
		c.usage = newUsage()
	}
	c.limit(a.limits)
	c.place = a.quiet.PushBack(c)
	a.known[who] = c
	return c
}

// close gives back a flow.
func (c *account) close() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.flows--; c.flows == 0 {
		c.place = c.of.quiet.PushBack(c)
	}
	c.of.settle(c, c.of.now())
}

// refuse counts a refusal; accounts.mu is held.
func (c *account) refuse(r Reason) { c.refused[r]++ }

// refusedFor counts a refusal.
func (c *account) refusedFor(r Reason) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.refuse(r)
}

// mayAsk reports whether a client may ask one more DNS query now.
func (c *account) mayAsk() bool {
	c.of.mu.Lock()
	asking, now := c.asking, c.of.now()
	c.of.mu.Unlock()
	return asking == nil || asking.AllowN(now, 1)
}

// settleEvery is how many bytes of a client are counted together against its
// quota.
const settleEvery = 1 << 20

// take waits until n bytes of the client's may pass. It fails when ctx ends, or
// with a *Refusal when the client's quota does.
func (c *account) take(ctx context.Context, n int) error {
	a := c.of
	if c.spent.Add(int64(n)) >= settleEvery {
		a.mu.Lock()
		now := a.now()
		a.settle(c, now)
		err := a.quota(c, now)
		a.mu.Unlock()
		if err != nil {
			return err
		}
	}
	a.mu.Lock()
	if c.turns == nil {
		c.turns = new(shareOf)
	}
	pace, share, turns := c.pace, a.share, c.turns
	a.mu.Unlock()
	if pace != nil {
		if err := pace.WaitN(ctx, n); err != nil {
			return err
		}
	}
	if share != nil {
		return share.take(ctx, turns, n)
	}
	return nil
}

// saveUsage returns what is to be kept of the clients' usage; nil for nothing
// new.
func (a *accounts) saveUsage() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.save()
}

// save is saveUsage; accounts.mu is held.
func (a *accounts) save() ([]byte, error) {
	a.settleAll()
	if !a.used.changed {
		return nil, nil
	}
	return a.used.encode()
}

// usageNotSaved has the next saveUsage return what the last one did.
func (a *accounts) usageNotSaved() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used.changed = true
}

// handOver is saveUsage a last time: what clients use from then on is counted
// apart.
func (a *accounts) handOver() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := a.save()
	a.late = newUsage()
	return b, err
}

// takeOver adds what another process has saved to what was counted apart here since
// the beginning, or has it stay as it is if that is nil. Nothing is counted apart any
// more.
func (a *accounts) takeOver(saved *usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settleAll()
	if saved != nil {
		saved.merge(a.late, a.now())
		*a.used = *saved
	}
	a.used.changed = true
	a.late = nil
}

// takeLate returns what was counted apart since then, or the last call; nil for
// nothing.
func (a *accounts) takeLate() *usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settleAll()
	late := a.late
	if late == nil || len(late.clients) == 0 {
		return nil
	}
	a.late = newUsage()
	return late
}

// giveBackLate undoes takeLate.
func (a *accounts) giveBackLate(late *usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late.merge(late, a.now())
}

// addUsage enters what was counted elsewhere.
func (a *accounts) addUsage(more *usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	a.used.merge(more, now)
	if a.late != nil {
		a.late.merge(more, now)
	}
}

// settleAll enters what all clients have used; accounts.mu is held.
func (a *accounts) settleAll() {
	now := a.now()
	for _, c := range a.known {
		a.settle(c, now)
	}
}
