package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// How Keep works.
const (
	// keepPause is the least time between two looks at the machine.
	keepPause = 200 * time.Millisecond
	// settingsEvery is how often settings are read: the kernel tells nobody
	// when these change. lookEvery bounds what a lost message costs.
	settingsEvery = time.Second
	lookEvery     = 10 * time.Second
	// maxFights within fightMemory are enough: then truce.
	maxFights   = 5
	fightMemory = time.Minute
	truce       = 30 * time.Second
)

func (c *configurator) Keep(ctx context.Context, report func(what string)) error {
	ev, err := newEvents(c.env)
	if err != nil {
		return fmt.Errorf("platform: watch over the tunnel: %w", err)
	}
	defer ev.close()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		ev.wake()
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	k := &keeper{c: c, report: report, fights: make(map[string]*fight), told: make(map[string]bool)}
	for {
		if err := k.look(time.Now()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(keepPause):
		}
		for looked := time.Now(); time.Since(looked) < lookEvery; {
			changed, err := ev.await(settingsEvery)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("platform: watch over the tunnel: %w", err)
			}
			if changed || !c.settingsInForce() {
				break
			}
		}
	}
}

// settingsInForce reads the settings only, which costs next to nothing.
func (c *configurator) settingsInForce() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.applied {
		if s, ok := ch.(*sysctlChange); ok {
			if v, err := s.inForce(c.env); err == nil && !v {
				return false
			}
		}
	}
	return true
}

// keeper is one Keep: what it remembers between two looks.
type keeper struct {
	c      *configurator
	report func(string)
	fights map[string]*fight
	told   map[string]bool // notes and errors
}

// fight is about one change that another program takes away.
type fight struct {
	times int
	last  time.Time
	until time.Time // the truce's end
}

// look compares the machine with what the last Set wants, and puts back what is
// not so. Its error ends Keep.
func (k *keeper) look(now time.Time) error {
	lines, err := k.putBack(now)
	for _, l := range lines {
		k.report(l)
	}
	return err
}

func (k *keeper) putBack(now time.Time) (lines []string, err error) {
	c := k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil || c.config.isZero() {
		return nil, nil
	}
	wanted, lines, err := k.plan()
	var gone *DeviceGoneError
	if errors.As(err, &gone) {
		return lines, err
	}
	if err != nil {
		return append(lines, k.once(err.Error())...), nil
	}
	var lost []change
	e := c.env.atOnce()
	for _, ch := range wanted {
		old := find(c.applied, ch.String())
		if old == nil {
			continue
		}
		if ok, err := old.inForce(e); err == nil && !ok {
			lost = append(lost, ch)
		}
	}
	put, told := k.fight(lost, now)
	lines = append(lines, told...)
	for i, ch := range wanted {
		// In a truce, it stays as we had it: what another program has put in
		// its place is no reason to act.
		if name := ch.String(); find(lost, name) != nil && find(put, name) == nil {
			wanted[i] = find(c.applied, name)
		}
	}
	moved := !slices.EqualFunc(wanted, c.applied, same)
	if len(put) == 0 && !moved {
		return lines, nil
	}
	if err := c.reconcile(wanted); err != nil {
		return append(lines, k.once(err.Error())...), nil
	}
	if moved {
		c.log.Debug("the network has changed; the rules follow")
	}
	return lines, nil
}

// plan is what Set would want now, without what it could not have then, and
// what there is to tell.
func (k *keeper) plan() (wanted []change, lines []string, err error) {
	c := k.c
	cfg := c.config
	f, err := gather(c.env, cfg)
	if errors.Is(err, errNoCgroup) {
		// Then nobody is in it. All else is watched over as before.
		lines = k.once(err.Error())
		cfg.BypassCgroup = ""
		f, err = gather(c.env, cfg)
	}
	if err != nil {
		return nil, lines, err
	}
	for _, ch := range c.applied {
		if l, ok := ch.(*linkChange); ok && c.config.Device != "" && l.Index != f.link.Index {
			return nil, nil, &DeviceGoneError{Device: l.Device}
		}
	}
	wanted, notes, err := plan(cfg, f, c.applied)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range notes {
		if !slices.Contains(c.notes, n) {
			c.notes = append(c.notes, n)
			lines = append(lines, k.once(n)...)
		}
	}
	return slices.DeleteFunc(wanted, func(ch change) bool { return c.failed[ch.String()] }), lines, nil
}

// once returns a line that was not told before. What it remembers is bounded.
func (k *keeper) once(text string) []string {
	if k.told[text] {
		return nil
	}
	if len(k.told) >= 100 {
		clear(k.told)
	}
	k.told[text] = true
	return []string{text}
}

// fight decides what of the lost is put back now, and what to say of it.
func (k *keeper) fight(lost []change, now time.Time) (put []change, lines []string) {
	for _, ch := range lost {
		name := ch.String()
		f := k.fights[name]
		if f == nil {
			f = new(fight)
			k.fights[name] = f
		}
		if now.Before(f.until) {
			continue
		}
		if now.Sub(f.last) > fightMemory {
			f.times = 0
		}
		f.times, f.last = f.times+1, now
		put = append(put, ch)
		lines = append(lines, "another program has taken this away, and it was put back: "+name)
		if f.times >= maxFights {
			f.times, f.until = 0, now.Add(truce)
			lines = append(lines, fmt.Sprintf("another program keeps taking this away: %s: it is put back once more and then left alone for %v; stop that program", name, truce))
		}
	}
	return put, lines
}
