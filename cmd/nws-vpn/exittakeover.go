package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
)

// successor is what a process says of itself that is to take the place of another.
type successor struct {
	npubs   []string // of its names, its own first
	version string
	pid     int
	// until is when it gives up that is not heard before; zero for never. Both
	// processes have the same clock.
	until time.Time
}

// query is the successor for the control socket of its predecessor.
func (s *successor) query() string {
	q := url.Values{"successor": {"1"}, "version": {s.version}, "npub": s.npubs, "pid": {strconv.Itoa(s.pid)}}
	if !s.until.IsZero() {
		q.Set("until", s.until.Format(time.RFC3339Nano))
	}
	return "?" + q.Encode()
}

// readSuccessor is the successor that asks, or nil.
func readSuccessor(q url.Values) *successor {
	if q.Get("successor") == "" {
		return nil
	}
	s := &successor{npubs: q["npub"], version: q.Get("version")}
	s.pid, _ = strconv.Atoi(q.Get("pid")) // other versions do not say it
	s.until, _ = time.Parse(time.RFC3339Nano, q.Get("until"))
	return s
}

// predecessor is what a process says of itself to the one that is to take its place.
type predecessor struct {
	// Metrics is where it shows its figures, "" for nowhere. Other versions do not say.
	Metrics *string `json:"metrics"`
}

// mayTakeOver makes sure that nobody who uses the exit is left without it: its
// successor has all of its names.
func (r *exitRun) mayTakeOver(s *successor) error {
	for _, npub := range r.npubs() {
		if !slices.Contains(s.npubs, npub) {
			who := ", which does not say who it is,"
			if len(s.npubs) > 0 {
				who = " (" + s.npubs[0] + ")"
			}
			return fmt.Errorf("the new process%s has not the name %s of the exit that runs: name another directory with --state-dir, or end that exit first with `nws-vpn exit drain`", who, npub)
		}
	}
	return nil
}

// exitNPubs reads the keys of the exit's names, its own first.
func exitNPubs(e *config.Exit) ([]string, error) {
	key, err := keyfile.Read(e.KeyFile)
	if err != nil {
		return nil, err
	}
	list := []string{key.Public().NPub()}
	for _, label := range slices.Sorted(maps.Keys(e.Names)) {
		if key, err = keyfile.Read(e.Names[label].KeyFile); err != nil {
			return nil, fmt.Errorf("the name %s: %w", label, err)
		}
		list = append(list, key.Public().NPub())
	}
	return list, nil
}

// meetPredecessor finds out whether another process runs with this state directory;
// nil if none does. One whose place is to be taken saves what it remembers, unless the
// place is not for this one.
func meetPredecessor(ctx context.Context, dir string, takeover bool, self *successor) (*predecessor, error) {
	path := "/save"
	if takeover {
		path += self.query()
	}
	answer, err := control.Do(ctx, dir, "POST", path)
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return nil, nil
	case errors.Is(err, control.ErrRefused) && takeover:
		return nil, fmt.Errorf("--takeover with the state directory %s: %w", dir, err)
	case err != nil:
		return nil, err
	case !takeover:
		return nil, fmt.Errorf("another exit runs with the state directory %s: end it, take its place with --takeover, or name another directory with --state-dir", dir)
	}
	before := new(predecessor)
	_ = json.Unmarshal(answer, before) // that of another version may be empty
	return before, nil
}

// takeOver takes the place of the process that runs with this state directory,
// once entries reach this one under all its names. From when the other one has let go
// nothing ends this process but ctx: nobody else would serve.
func (r *exitRun) takeOver(ctx context.Context, beside *sync.WaitGroup) error {
	for _, n := range r.names {
		select {
		case <-n.ready:
		case <-ctx.Done():
			return nil
		}
	}
	if err := r.replace(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("take over: %w", err)
	}
	if err := r.server.TakeOverUsage(); err != nil {
		r.log.Error("exit", "err", err)
	}
	for err := r.openDoors(ctx, beside); err != nil; err = r.openDoors(ctx, beside) {
		r.log.Error("this process has taken over, but has no control socket yet", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(doorRetry):
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	fmt.Fprintln(r.out, "taken over")
	return nil
}

// drainWithin is how long a predecessor may take until it begins to let go, and how
// long to do it.
const drainWithin = 30 * time.Second

// replace has the predecessor let go, unless it has ended by itself. Once it is asked,
// the end of ctx does not take that back: it would be left to chance which process
// has what only one can have.
func (r *exitRun) replace(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	self := successor{r.npubs(), buildVersion(), os.Getpid(), time.Now().Add(drainWithin)}
	for {
		_, err := control.DoWithin(context.WithoutCancel(ctx), 2*drainWithin, r.state, "POST", "/drain"+self.query())
		switch {
		case err == nil:
			return ctx.Err()
		case errors.Is(err, control.ErrNotRunning):
			r.log.Info("there is no process to be replaced any more")
			return ctx.Err()
		case errors.Is(err, control.ErrRefused), errors.Is(err, control.ErrSilent), time.Now().After(self.until):
			return err
		}
		// It may have ended before it could answer, which the next try tells.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(drainCheck):
		}
	}
}

// change says which version comes after which.
func (s *successor) change() string {
	return buildVersion() + " -> " + cmp.Or(oneLine(s.version), "an unknown version")
}
