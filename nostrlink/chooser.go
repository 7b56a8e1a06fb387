package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Chooser keeps a link to the best of the exits that the user trusts: those
// that are announced, and those that the rule lists by key, which need not be.
// When the exit dies, the next one takes its place. Exits that know no session
// are not chosen: whether they are there cannot be told.
type Chooser struct {
	directory *Directory
	rule      Rule
	opts      LinkOptions
	ctx       context.Context
	cancel    context.CancelFunc
	tasks     sync.WaitGroup
	current   *chosenLink // Watch's, once it has been called
}

// chosenLink is a link that is served until stop.
type chosenLink struct {
	*Link
	stop context.CancelFunc
}

// Times of choosing.
const (
	lookTimeout    = 3 * time.Second  // for the announcements
	probeSpare     = time.Second      // for others, when the first exit has answered
	ailsTooLong    = 3 * time.Second  // for an exit in trouble, which Link takes its time to see
	maxChoosePause = 30 * time.Second // between attempts to find another one
)

// NewChooser returns a chooser that has not chosen yet. Close it in the end.
func (d *Directory) NewChooser(rule Rule, opts LinkOptions) *Chooser {
	opts.Mode = SessionOnly
	c := &Chooser{directory: d, rule: rule, opts: opts}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends the links and waits for them.
func (c *Chooser) Close() error {
	c.cancel()
	c.tasks.Wait()
	return nil
}

// Start chooses an exit and returns the link to it, connected. The chooser
// serves it. The error may be announce.ErrNoTrust, announce.ErrNobody or
// announce.ErrUnreachable. It is to be called once.
func (c *Chooser) Start(ctx context.Context) (*Link, error) {
	// The connections to the user's relays last from the looking to the link.
	release, err := c.directory.hub.warm(ctx, c.directory.relays)
	defer release()
	if err != nil {
		return nil, err
	}
	best, err := c.choose(ctx)
	if err != nil {
		return nil, err
	}
	if c.current, err = c.connect(ctx, best); err != nil {
		return nil, err
	}
	return c.current.Link, nil
}

// Watch has the next exit take the place of one that has died, from now on until
// Close. use is called with each new link, connected; the flows of the old one
// end afterwards. It is to be called once, after Start.
func (c *Chooser) Watch(use func(*Link)) {
	c.tasks.Go(func() {
		check := time.NewTicker(keepCheck)
		defer check.Stop()
		var ailing, next time.Time
		pause := minRetry
		for {
			select {
			case <-c.ctx.Done():
				return
			case <-check.C:
			}
			now := time.Now()
			s := c.current.Status()
			switch {
			case s.State == Connected && s.Failure == nil:
				ailing, pause = time.Time{}, minRetry
			case ailing.IsZero():
				ailing = now
			case now.Sub(ailing) >= ailsTooLong && now.After(next):
				if link := c.other(); link != nil {
					use(link.Link)
					c.current.stop()
					c.current, ailing = link, time.Time{}
				}
				next = time.Now().Add(pause)
				pause = min(2*pause, maxChoosePause)
			}
		}
	})
}

// other finds another exit than the current one. It returns nil if there is
// none, or the current one is back.
func (c *Chooser) other() *chosenLink {
	best, err := c.choose(c.ctx)
	at := slices.IndexFunc(best, func(e announce.Entry) bool { return e.Key == c.current.Exit() })
	if at >= 0 {
		return nil
	}
	var link *chosenLink
	if err == nil {
		link, err = c.connect(c.ctx, best)
	}
	if err != nil {
		c.directory.log.Warn("no other exit takes the place of the one in trouble", "err", err)
		return nil
	}
	c.directory.log.Warn("another exit takes the place of the one in trouble", "from", c.current.Exit().NPub(), "to", link.Exit().NPub())
	return link
}

// choose returns the exits that are admitted and have answered, best first.
func (c *Chooser) choose(ctx context.Context) ([]announce.Entry, error) {
	looking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	found, err := c.directory.Look(looking, c.rule)
	if err != nil {
		return nil, err
	}
	entries, private := c.admitted(found)
	probing, cancel := context.WithCancel(ctx)
	defer cancel()
	var spare *time.Timer
	probes := c.directory.Probe(probing, entries, func(_ int, p announce.Probe) {
		if p.Err == nil && spare == nil {
			spare = time.AfterFunc(probeSpare, cancel)
		}
	})
	if spare != nil {
		spare.Stop()
	}
	var candidates []announce.Candidate
	byKey := make(map[envelope.PublicKey]announce.Entry)
	for i, e := range entries {
		byKey[e.Key] = e
		candidates = append(candidates, announce.Candidate{Announcement: e.Announcement, Probe: probes[i]})
	}
	chosen, err := announce.Choose(candidates, found.Trust)
	switch {
	case errors.Is(err, announce.ErrNobody) && private > 0:
		err = fmt.Errorf("%w: %d that it admits serve only those they know or have invited: use `nws-vpn join`, if you have an invitation", announce.ErrNobody, private)
	case errors.Is(err, announce.ErrNobody):
		err = fmt.Errorf("%w: `nws-vpn exits` lists those that are announced", announce.ErrNobody)
	}
	var best []announce.Entry
	for _, candidate := range chosen {
		best = append(best, byKey[candidate.Key])
	}
	return best, err
}

// maxCandidates bounds the exits that are tried.
const maxCandidates = 64

// admitted are the exits that the rule admits: announced ones, and listed ones
// that are not announced, which may still be reached. Those that say that they do
// not serve everybody are left out, and counted, when there is nothing to show
// them.
func (c *Chooser) admitted(found *Found) (entries []announce.Entry, private int) {
	known := make(map[envelope.PublicKey]bool)
	for _, e := range found.Exits {
		if !e.Trusted {
			continue
		}
		known[e.Key] = true
		if e.Private() && !c.shows(e.Key) {
			private++
			continue
		}
		entries = append(entries, e)
	}
	for _, key := range c.rule.Listed {
		if !known[key] {
			known[key] = true
			entries = append(entries, announce.Entry{Announcement: announce.Announcement{Key: key, Load: announce.NoLoad}})
		}
	}
	return entries[:min(len(entries), maxCandidates)], private
}

// shows reports whether an exit is shown who dials, or an invitation.
func (c *Chooser) shows(exit envelope.PublicKey) bool {
	return c.opts.Credentials != nil && c.opts.Credentials(exit) != Credentials{}
}

// connect returns a connected link to the first of the exits that has one.
func (c *Chooser) connect(ctx context.Context, best []announce.Entry) (link *chosenLink, err error) {
	for _, e := range best {
		link = c.serve(e)
		trying, cancel := context.WithTimeout(ctx, probeTimeout)
		err = link.Connect(trying)
		cancel()
		if err == nil {
			return link, nil
		}
		link.stop()
	}
	return nil, fmt.Errorf("%w: %w", announce.ErrUnreachable, err)
}

func (c *Chooser) serve(e announce.Entry) *chosenLink {
	ctx, stop := context.WithCancel(c.ctx)
	link := &chosenLink{c.directory.hub.NewLink(e.Key, c.directory.Reach(e), c.opts), stop}
	link.set(Connecting, nil, nil) // so that Connect waits for Serve
	c.tasks.Go(func() { link.Serve(ctx) })
	return link
}
