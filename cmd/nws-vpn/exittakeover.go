package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
)

// successor is what a process says of itself that is to take the place of another.
type successor struct {
	npubs   []string // of its names, its own first
	version string
}

// query is the successor for the control socket of its predecessor.
func (s *successor) query() string {
	return "?" + url.Values{"successor": {"1"}, "version": {s.version}, "npub": s.npubs}.Encode()
}

// readSuccessor is the successor that asks, or nil.
func readSuccessor(q url.Values) *successor {
	if q.Get("successor") == "" {
		return nil
	}
	return &successor{q["npub"], q.Get("version")}
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

// meetPredecessor finds out whether another process runs with this state
// directory. One whose place is to be taken saves what it remembers, unless the
// place is not for this one.
func meetPredecessor(ctx context.Context, dir string, takeover bool, self *successor) (isThere bool, err error) {
	path := "/save"
	if takeover {
		path += self.query()
	}
	_, err = control.Do(ctx, dir, "POST", path)
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return false, nil
	case errors.Is(err, control.ErrRefused) && takeover:
		return true, fmt.Errorf("--takeover with the state directory %s: %w", dir, err)
	case err != nil:
		return true, err
	case !takeover:
		return true, fmt.Errorf("another exit runs with the state directory %s: end it, take its place with --takeover, or name another directory with --state-dir", dir)
	}
	return true, nil
}

// takeOver takes the place of the process that runs with this state directory,
// once entries reach this one under all its names.
func (r *exitRun) takeOver(ctx context.Context, beside *sync.WaitGroup) error {
	for _, n := range r.names {
		select {
		case <-n.ready:
		case <-ctx.Done():
			return nil
		}
	}
	self := successor{r.npubs(), buildVersion()}
	if _, err := control.DoWithin(ctx, restartTimeout, r.state, "POST", "/drain"+self.query()); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("take over: %w", err)
	}
	if err := r.server.TakeOverUsage(); err != nil {
		r.log.Error("exit", "err", err)
	}
	if err := r.openDoors(ctx, beside); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	fmt.Fprintln(r.out, "taken over")
	return nil
}

// change says which version comes after which.
func (s *successor) change() string {
	return buildVersion() + " -> " + cmp.Or(oneLine(s.version), "an unknown version")
}
