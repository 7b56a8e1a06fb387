package main

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
)

// exitChange is a part of the configuration that changes while the exit runs.
type exitChange struct {
	what string
	keys []string // of section [exit]
	// prepare finds out what is wrong with a configuration, as far as that can be
	// told before anything changes, and returns what has it hold.
	prepare func(r *exitRun, c *config.Config) (apply func() error, err error)
}

// exitChanges are all there are beside relayChange. What is applied is undone by the
// old configuration if something later fails, which is why those that cannot fail are
// the last: guests are turned out, and what is known of their friends is forgotten,
// for good.
var exitChanges = []exitChange{
	{"policy", []string{"rules", "policy", "allow_private"}, func(r *exitRun, c *config.Config) (func() error, error) {
		return func() error { return r.server.SetPolicy(exitPolicy(&c.Exit)) }, nil
	}},
	{"limits", []string{
		"max_clients", "max_client_flows", "flows_per_second", "queries_per_second", "bytes_per_second",
		"total_bytes_per_second", "quota_day", "quota_month", "flow_idle", "flow_life",
	}, func(r *exitRun, c *config.Config) (func() error, error) {
		return func() error { return r.server.SetLimits(c.Exit.Limits()) }, nil
	}},
	{"services", []string{"services", "names"}, (*exitRun).prepareServices},
	{"announcement", []string{"rules", "policy", "allow_private", "contact", "admission"}, (*exitRun).prepareAnnouncement},
	{"admission", []string{"admission", "allow", "wot"}, (*exitRun).prepareAdmission},
}

// relayChange is that of the relay within the exit, in section [relay]. It cannot
// fail once it is prepared.
var relayChange = exitChange{"relay", nil, func(r *exitRun, c *config.Config) (func() error, error) {
	apply, err := r.embedded.server.prepare(&c.Relay)
	return func() error { apply(); return nil }, err
}}

// prepareServices is for the services of the names.
func (r *exitRun) prepareServices(c *config.Config) (apply func() error, err error) {
	sites := make([]exit.Site, 0, len(r.names))
	for _, n := range r.names {
		services := c.Exit.Services
		if n.label != "" {
			services = c.Exit.Names[n.label].Services
		}
		if n.keeper == nil && anyTLS(services) {
			return nil, errors.New("a service over TLS, when there was none before, takes a restart of the exit")
		}
		sites = append(sites, n.site(services))
	}
	return func() error {
		for _, s := range sites {
			if err := r.server.SetSite(s); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// prepareAnnouncement is for what is announced.
func (r *exitRun) prepareAnnouncement(c *config.Config) (apply func() error, err error) {
	about := make(map[*announcer]announce.Announcement)
	e := c.Exit
	e.Instance = r.started.Exit.Instance // it would be another announcement beside the one that is there
	for _, n := range r.names {
		if n.about == nil {
			continue
		}
		if about[n.about], err = announcement(&e, n.key); err != nil {
			return nil, err
		}
	}
	return func() error {
		for a, to := range about {
			a.change(to)
		}
		return nil
	}, nil
}

// reload reads the configuration again and has it hold from now on, as far as
// that is possible in a running exit; flows stay. If anything is wrong with it,
// all stays as it was. The outcome is logged.
func (r *exitRun) reload() (*reloadReport, error) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	var report *reloadReport
	next, err := r.load()
	if err == nil {
		report, err = r.change(next)
	}
	if err != nil {
		r.log.Error("the new configuration is not taken, the old one stays", "err", err)
		return nil, err
	}
	r.log.Info("configuration reloaded", "changed", report.Changed)
	if len(report.Waiting) > 0 {
		r.log.Warn("some of the configuration holds from the next start on", "keys", report.Waiting)
	}
	return report, nil
}

// reloadReport is what has become of a configuration.
type reloadReport struct {
	Changed []string `json:"changed"` // what has changed since the last one
	Waiting []string `json:"waiting"` // keys that do not hold before the next start
}

// String is for the operator.
func (r *reloadReport) String() string {
	now := strings.Join(r.Changed, ", ")
	later := strings.Join(r.Waiting, ", ")
	switch {
	case now == "" && later == "":
		return "reloaded: nothing has changed"
	case later == "":
		return "reloaded: " + now
	case now == "":
		return "reloaded: nothing has changed before the next start (`nws-vpn exit restart`), from which these keys hold: " + later
	}
	return "reloaded: " + now + "; from the next start on (`nws-vpn exit restart`): " + later
}

func (r *exitRun) change(next *config.Config) (*reloadReport, error) {
	old := r.config()
	changes, restart := planReload(r.started, old, next)
	var level slog.LevelVar
	if err := setLevel(&level, next.LogLevel); err != nil {
		return nil, err
	}
	if err := r.apply(changes, old, next); err != nil {
		return nil, err
	}
	r.level.Set(level.Level())
	r.mu.Lock()
	r.cfg = next
	r.mu.Unlock()
	report := &reloadReport{Changed: make([]string, 0, len(changes)), Waiting: restart}
	for _, c := range changes {
		report.Changed = append(report.Changed, c.what)
	}
	if old.LogLevel != next.LogLevel {
		report.Changed = append(report.Changed, "log_level")
	}
	return report, nil
}

// apply has next hold in the place of old, or changes nothing.
func (r *exitRun) apply(changes []exitChange, old, next *config.Config) (err error) {
	apply := make([]func() error, len(changes))
	for i, c := range changes {
		if apply[i], err = c.prepare(r, next); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	for i, c := range changes {
		if err := apply[i](); err != nil {
			for _, done := range slices.Backward(changes[:i+1]) {
				undo, back := done.prepare(r, old)
				if back == nil {
					back = undo()
				}
				if back != nil {
					err = fmt.Errorf("%w; and what was changed before that does not go back: %w", err, back)
				}
			}
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	return nil
}

// config is the configuration that was read last. It is not changed any more.
func (r *exitRun) config() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cfg
}

// planReload says what leads from one configuration to another, and which keys of
// that are other than what the process was started with, and hold only after a
// restart.
func planReload(started, old, next *config.Config) (changes []exitChange, restart []string) {
	changed := changedKeys(reflect.ValueOf(old.Exit), reflect.ValueOf(next.Exit))
	other := changedKeys(reflect.ValueOf(started.Exit), reflect.ValueOf(next.Exit))
	live := make(map[string]bool)
	for _, c := range exitChanges {
		hit := false
		for _, key := range c.keys {
			live[key] = true
			hit = hit || slices.Contains(changed, key)
		}
		if hit {
			changes = append(changes, c)
		}
	}
	for _, key := range other {
		if !live[key] {
			restart = append(restart, "exit."+key)
		}
	}
	if !sameNames(started.Exit.Names, next.Exit.Names) {
		restart = append(restart, "exit.names")
	}
	if started.Exit.RelayListen != "" {
		if now, _ := planRelayReload(&old.Relay, &next.Relay); len(now) > 0 {
			changes = append(changes, relayChange)
		}
		_, later := planRelayReload(&started.Relay, &next.Relay)
		restart = append(restart, slices.DeleteFunc(later, func(key string) bool { return key == "relay.listen" })...)
	}
	return changes, restart
}

// changedKeys are the toml keys of the fields in which two structs differ.
func changedKeys(a, b reflect.Value) (keys []string) {
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			keys = append(keys, a.Type().Field(i).Tag.Get("toml"))
		}
	}
	return keys
}

// sameNames reports whether two sets of names differ in their services at most.
func sameNames(a, b map[string]config.ExitName) bool {
	if len(a) != len(b) {
		return false
	}
	for label, x := range a {
		y, both := b[label]
		x.Services, y.Services = nil, nil
		if !both || !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}
