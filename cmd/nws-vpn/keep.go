package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/platform"
)

// startKeeping watches over what is in force, until it is replaced.
func (s *supervisor) startKeeping() {
	ctx, cancel := context.WithCancel(s.ctx)
	s.keeping = cancel
	var device *platform.DeviceGoneError
	var stack *netstack.Stack
	if s.tunnel != nil {
		stack = s.tunnel.stack
	}
	s.kept.Go(func() {
		err := s.platform.Keep(ctx, func(what string) {
			s.log.Warn("another program has changed the machine", "what", what)
			s.repaired.add(what, time.Now())
		})
		switch {
		case ctx.Err() != nil:
		case errors.As(err, &device):
			// Not here: run may be waiting for the end of this.
			s.tasks.Go(func() { s.tell(event{what: lifecycle.DeviceGone, stack: stack}) })
		case err != nil:
			s.log.Warn("changes of the machine by others are not noticed", "err", err)
		}
	})
}

func (s *supervisor) stopKeeping() {
	if s.keeping != nil {
		s.keeping()
		s.kept.Wait()
	}
}

// redial makes sure at once that there are connections to the relays.
func (s *supervisor) redial() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	s.mu.Lock()
	t := s.tunnel
	s.mu.Unlock()
	if t != nil {
		t.hub.NetworkChanged()
	}
}

// ails is what keeps a link from carrying anything now, nil when nothing does.
func ails(s nostrlink.LinkStatus) error {
	carries := func(r nostrlink.RelayStatus) bool { return r.State == nostrlink.RelayCarrying }
	switch {
	case s.Failure != nil:
		return s.Failure
	case s.State != nostrlink.Connected:
		return fmt.Errorf("the link to the exit is %v", s.State)
	case !s.Plain && !slices.ContainsFunc(s.Relays, carries):
		for _, r := range s.Relays {
			if r.Err != nil {
				return aboutRelay(r.URL, r.Err)
			}
		}
		return errors.New("no relay is connected")
	}
	return nil
}

// aboutRelay is an error of a relay, with its name once.
func aboutRelay(url string, err error) error {
	if relayProblem(url, err) != err.Error() {
		return err
	}
	return fmt.Errorf("relay %s: %w", url, err)
}

// repairs are the last things that other programs have changed and that were
// put back.
type repairs struct {
	mu    sync.Mutex
	list  []repairNote
	total int
}

type repairNote struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// maxRepairs is how many are remembered.
const maxRepairs = 10

func (r *repairs) add(what string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total++
	r.list = append(r.list, repairNote{now, what})
	r.list = r.list[max(0, len(r.list)-maxRepairs):]
}

// all are the last ones, oldest first, and how many there were ever.
func (r *repairs) all() ([]repairNote, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list), r.total
}
