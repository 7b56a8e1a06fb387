package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A session that is not heard of any more is not given up: its exit, a relay or
// this machine may have lost the network for a while. But an exit that has
// restarted will never answer it. To tell the two apart the link asks for
// another session meanwhile, and takes that one if the exit grants it while the
// old one stays silent.
const (
	keepCheck    = time.Second     // between looks at the session
	doubtAfter   = 5 * time.Second // of unanswered packets
	doubtMuted   = time.Second     // of them, when a relay says that nobody listens for the exit's end
	lastChance   = 3 * time.Second // for the old session, when the exit has answered
	maxHuntPause = 5 * time.Second // between attempts to get another one
)

// An exit that goes away asks for another session: with the process that takes
// its place. The link makes one as soon as there is such a process; the flows of
// the old session go on in it.
const (
	maxMovePause = time.Minute // between attempts to get that session
	maxLeaving   = 4           // sessions that are kept for their last flows
)

var (
	errRestarted = errors.New("the exit answers in a new session only: it has restarted, another one has taken its place, or the network was gone for long")
	errGoesAway  = errors.New("the exit goes away")
)

// keep stays with a session until it is lost, and says why, or ctx ends. next
// is the session that takes its place, if there is one already.
func (l *Link) keep(ctx context.Context, up *opened) (next *opened, err error) {
	check := time.NewTicker(keepCheck)
	defer check.Stop()
	pause, movePause := minRetry, minRetry
	var asked time.Time // when a mute last made us ask
	away, again := up.session.GoingAway(), (<-chan time.Time)(nil)
	for {
		muted := false
		select {
		case <-away:
			away, again = nil, time.After(time.Until(up.since.Add(minRetry)))
		case <-again:
			if next = l.move(ctx, up); next != nil {
				return next, errGoesAway
			}
			again = time.After(movePause)
			movePause = min(2*movePause, maxMovePause)
		case <-ctx.Done():
			return nil, nil
		case <-up.session.Done():
			return nil, up.session.Err()
		case <-up.bundle.abandoned:
			return nil, up.bundle.problem()
		case <-up.bundle.muted:
			muted = true
			// What was muted may have asked for no answer.
			if now := time.Now(); now.Sub(asked) >= keepCheck {
				up.session.Ping()
				asked = now
			}
		case <-check.C:
		}
		silent := up.silentFor(time.Now())
		if silent < doubtAfter && !(muted && silent >= doubtMuted) {
			if silent == 0 {
				l.ails(nil, up.isCut())
				pause = minRetry
			}
			continue
		}
		l.ails(fmt.Errorf("nothing was heard from the exit for %v: it, a relay or the network is down", silent.Round(time.Second)), false)
		if next = l.hunt(ctx, up); next != nil {
			return next, errRestarted
		}
		sleepUntil(ctx, up.session.Done(), pause)
		pause = min(2*pause, maxHuntPause)
	}
}

// ails notes what is wrong with the session that is up, or that nothing is. One that
// is cut from all relays may go on when they are back.
func (l *Link) ails(failure error, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if failure == nil && !cut {
		l.ailing = time.Time{}
	} else if l.ailing.IsZero() {
		l.ailing = time.Now()
	}
	l.failure = failure
}

// isCut reports whether nothing carries the session.
func (o *opened) isCut() bool { return len(o.session.Stats().Paths) == 0 }

// sleepUntil sleeps for d, or until ctx or done ends.
func sleepUntil(ctx context.Context, done <-chan struct{}, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-ctx.Done():
	case <-done:
	}
}

// silentFor is how long the exit has not been heard although every relay at
// hand is waiting for an answer. It is zero while there is none.
func (o *opened) silentFor(now time.Time) time.Duration {
	paths := o.session.Stats().Paths
	if len(paths) == 0 {
		return 0
	}
	for _, p := range paths {
		if !p.Silent {
			return 0
		}
	}
	return now.Sub(o.bundle.heardAt())
}

// move asks for another session since the exit goes away. It returns nil if there
// is none to be had, the old one has ended, or too many have been left already.
func (l *Link) move(ctx context.Context, old *opened) *opened {
	select {
	case l.leaving <- struct{}{}:
	default:
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-old.session.Done():
			cancel()
		case <-ctx.Done():
		}
	})
	next, err := l.open(ctx)
	if err != nil {
		<-l.leaving
		l.opts.Log.Debug("the exit goes away, and no other process has its key", "err", err)
		return nil
	}
	return next
}

// leave closes a session that was moved from once its last flow has ended, or ctx
// has.
func (l *Link) leave(ctx context.Context, old *opened) {
	stop := context.AfterFunc(ctx, func() { old.session.Close() })
	defer stop()
	old.dials.Wait() // no new ones begin
	old.session.AwaitIdle(ctx)
	old.close()
	<-l.leaving
}

// hunt asks the exit for another session. It returns nil if there is none to be
// had, or the old one has been heard.
func (l *Link) hunt(ctx context.Context, old *opened) *opened {
	begun := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(old.bundle.ctx, cancel)
	defer stop()
	next, err := l.open(ctx)
	if err != nil {
		l.opts.Log.Debug("no other session with the exit", "err", err)
		return nil
	}
	if old.revives(ctx, begun) {
		next.close()
		return nil
	}
	return next
}

// revives gives a session a last chance to be heard after begun. It has less
// time once a relay repeats that nobody listens for the exit's end.
func (o *opened) revives(ctx context.Context, begun time.Time) bool {
	select {
	case <-o.bundle.muted: // from before the exit answered
	default:
	}
	chance := time.NewTimer(lastChance)
	defer chance.Stop()
	poll := time.NewTicker(lastChance / 30)
	defer poll.Stop()
	for {
		if o.bundle.heardAt().After(begun) {
			return true
		}
		select {
		case <-chance.C:
			return false
		case <-o.bundle.muted:
			return false
		case <-o.session.Done():
			return false
		case <-ctx.Done():
			return false
		case <-poll.C:
		}
	}
}
