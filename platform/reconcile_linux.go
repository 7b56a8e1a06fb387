package platform

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// reconcile brings the machine from what is applied to what is wanted. At every
// moment the journal lists at least what is in force.
//
//  1. The journal gets both.
//  2. What is wanted and not in force is made, in order, then verified. If that
//     fails, everything made here is undone and what was applied is made again.
//  3. What is no longer wanted is undone, last first.
//  4. The journal gets what is left.
func (c *configurator) reconcile(wanted []change) error {
	before := c.applied
	if err := c.announce(append(slices.Clone(wanted), missingFrom(wanted, before)...)); err != nil {
		return err
	}
	done, err := c.applyAll(wanted)
	if err != nil {
		return errors.Join(err, c.rollBack(done, before))
	}
	stale := missingFrom(wanted, before)
	left, err := c.undoAll(stale)
	if err != nil && len(wanted) > 0 && !slices.ContainsFunc(left, isNeeded) {
		// The tunnel works with it, as it would without it.
		if note := strings.ReplaceAll(err.Error(), "\n", "; "); !slices.Contains(c.notes, note) {
			c.notes = append(c.notes, note)
		}
		err = nil
	}
	// What failed as optional was undone and is no longer wanted: it is in
	// neither list. A journal that cannot be shortened lists too much, which
	// does no harm; what matters is on it.
	if serr := c.save(append(done, left...)); serr != nil && len(done)+len(left) > 0 {
		c.log.Warn("the journal lists more than is in force", "err", serr)
	} else {
		err = errors.Join(err, serr)
	}
	return err
}

// isNeeded reports whether the tunnel does not work without the change.
func isNeeded(ch change) bool {
	_, ok := ch.(optional)
	return !ok
}

// announce sees to it that the journal lists all of list. It writes only what is
// new, so that undoing works on a full disk.
func (c *configurator) announce(list []change) error {
	if c.held != nil && !reflect.DeepEqual(c.held, c.heldOnDisk) {
		return c.save(list)
	}
	for _, ch := range list {
		if old := find(c.onDisk, ch.String()); old == nil || !same(old, ch) {
			return c.save(list)
		}
	}
	c.applied = list
	return nil
}

// save makes list what the journal lists.
func (c *configurator) save(list []change) error {
	if slices.EqualFunc(list, c.onDisk, same) && reflect.DeepEqual(c.held, c.heldOnDisk) {
		c.applied = list
		return nil
	}
	if err := c.env.step("before the journal"); err != nil {
		return err
	}
	j := &journal{Version: journalVersion, Boot: c.boot, Namespace: c.ns, Changes: list, Held: c.held}
	if err := writeJournal(c.dir, j); err != nil {
		return err
	}
	c.applied, c.onDisk, c.heldOnDisk = list, list, c.held
	return c.env.step("after the journal")
}

// applyAll makes what is not in force. It returns the changes that are now, and
// on an error also those that may be.
func (c *configurator) applyAll(wanted []change) ([]change, error) {
	var done []change
	for _, ch := range wanted {
		err := c.applyOne(ch)
		if opt, ok := ch.(optional); ok && err != nil && c.needDNS {
			err = errors.New(opt.note(err))
		} else if ok && err != nil {
			c.notes = append(c.notes, opt.note(err))
			c.failed[ch.String()] = !errors.Is(err, errWritten)
			if left, _ := c.undoAll([]change{ch}); len(left) == 0 {
				continue
			}
			err = nil // it may be in force, and stays on the list
		}
		done = append(done, ch)
		if err != nil {
			return done, fmt.Errorf("platform: %s: %w", ch, err)
		}
	}
	return done, c.verify(done)
}

// applyOne leaves what is in force alone. What it cannot look at, it makes.
func (c *configurator) applyOne(ch change) error {
	if ok, err := ch.inForce(c.env); err == nil && ok {
		return nil
	}
	if err := c.env.step("before " + ch.String()); err != nil {
		return err
	}
	c.tell("", describe(ch)...)
	if err := ch.apply(c.env); err != nil {
		return err
	}
	return c.env.step("after " + ch.String())
}

// tell lets the trace, or the log if there is none, know what is about to be made.
func (c *configurator) tell(prefix string, lines ...string) {
	if c.trace == nil {
		c.log.Debug("change the machine", "do", prefix+lines[0])
		return
	}
	for _, l := range lines {
		c.trace(prefix + l)
	}
}

// errChangedBack says that something that was in force no longer is.
var errChangedBack = errors.New("another program has changed it back: take this setting out of its care")

// verify looks at everything again: a change may have been made and taken back
// by another program, or by a later change.
func (c *configurator) verify(done []change) error {
	if err := c.env.step("before verifying"); err != nil {
		return err
	}
	e := c.env.atOnce()
	for _, ch := range done {
		ok, err := ch.inForce(e)
		if err == nil && !ok {
			err = errChangedBack
		}
		if opt, isOptional := ch.(optional); isOptional && err != nil && !c.needDNS {
			c.notes = append(c.notes, opt.note(err))
		} else if err != nil {
			return fmt.Errorf("platform: verify %s: %w", ch, err)
		}
	}
	return nil
}

// rollBack undoes what a failed reconcile made, and makes again what was there.
// What was in force all the time is left alone, and what had another form is
// given that again without being undone first, which would open a window.
func (c *configurator) rollBack(done, before []change) error {
	made := missingFrom(before, done)
	left, err := c.undoAll(made)
	for _, ch := range before {
		if aerr := c.applyOne(ch); aerr != nil {
			err = errors.Join(err, fmt.Errorf("platform: make again: %s: %w", ch, aerr))
		}
	}
	return errors.Join(err, c.save(append(slices.Clone(before), missingFrom(before, left)...)))
}

// undoAll undoes the last first. It goes on after an error, and returns the
// changes that could not be undone.
func (c *configurator) undoAll(list []change) (left []change, err error) {
	for _, ch := range slices.Backward(list) {
		uerr := c.env.step("before undoing " + ch.String())
		if uerr == nil {
			c.tell("undo: ", ch.String())
			uerr = ch.undo(c.env)
		}
		if uerr == nil {
			uerr = c.env.step("after undoing " + ch.String())
		}
		if uerr != nil {
			left = append(left, ch)
			err = errors.Join(err, fmt.Errorf("platform: undo %s: %w: put it right by hand or run `nws-vpn down` again", ch, uerr))
		}
	}
	slices.Reverse(left)
	return left, err
}
