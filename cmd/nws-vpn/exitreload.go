package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
)

// exitChange is a part of the configuration that changes while the exit runs.
type exitChange struct {
	what  string
	keys  []string // of section [exit]
	apply func(r *exitRun, c *config.Config) error
}

// exitChanges are all there are. apply is called with the new configuration, and
// once more with the old one if a later change fails.
var exitChanges = []exitChange{
	{"policy", []string{"rules", "policy", "allow_private"}, func(r *exitRun, c *config.Config) error {
		return r.server.SetPolicy(exitPolicy(&c.Exit))
	}},
	{"limits", []string{
		"max_clients", "max_client_flows", "flows_per_second", "queries_per_second", "bytes_per_second",
		"total_bytes_per_second", "quota_day", "quota_month", "flow_idle", "flow_life",
	}, func(r *exitRun, c *config.Config) error { return r.server.SetLimits(c.Exit.Limits()) }},
	{"services", []string{"services", "names"}, (*exitRun).setServices},
	{"admission", []string{"admission", "allow", "wot"}, (*exitRun).setAdmission},
	{"announcement", []string{"rules", "policy", "allow_private", "contact"}, (*exitRun).setAnnouncement},
}

// setServices has the names' services be those of c.
func (r *exitRun) setServices(c *config.Config) error {
	for _, n := range r.names {
		services := c.Exit.Services
		if n.label != "" {
			services = c.Exit.Names[n.label].Services
		}
		if n.keeper == nil && anyTLS(services) {
			return errors.New("a service over TLS, when there was none before, takes a restart of the exit")
		}
		if err := r.server.SetSite(n.site(services)); err != nil {
			return err
		}
	}
	return nil
}

// setAnnouncement has what is announced be as c says.
func (r *exitRun) setAnnouncement(c *config.Config) error {
	for _, n := range r.names {
		if n.about == nil {
			continue
		}
		about, err := announcement(&c.Exit, n.key)
		if err != nil {
			return err
		}
		n.about.change(about)
	}
	return nil
}

// reload reads the configuration again and has it hold from now on, as far as
// that is possible in a running exit; flows stay. If anything is wrong with it,
// all stays as it was. The outcome is logged.
func (r *exitRun) reload() error {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	next, err := r.load()
	if err == nil {
		err = r.change(next)
	}
	if err != nil {
		r.log.Error("the new configuration is not taken, the old one stays", "err", err)
	}
	return err
}

func (r *exitRun) change(next *config.Config) error {
	old := r.config()
	changes, restart := planReload(old, next)
	for i, c := range changes {
		if err := c.apply(r, next); err != nil {
			for _, done := range slices.Backward(changes[:i+1]) {
				if back := done.apply(r, old); back != nil {
					err = fmt.Errorf("%w; and what was changed before that does not go back: %w", err, back)
				}
			}
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	if err := setLevel(r.level, next.LogLevel); err != nil {
		return err
	}
	r.mu.Lock()
	r.cfg = next
	r.mu.Unlock()
	names := make([]string, 0, len(changes))
	for _, c := range changes {
		names = append(names, c.what)
	}
	r.log.Info("configuration reloaded", "changed", names)
	if len(restart) > 0 {
		r.log.Warn("some of what has changed holds from the next start on", "keys", restart)
	}
	return nil
}

// config is the configuration that was read last. It is not changed any more.
func (r *exitRun) config() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cfg
}

// planReload says what leads from one configuration to another, and which keys
// hold only after a restart.
func planReload(old, next *config.Config) (changes []exitChange, restart []string) {
	changed := changedKeys(reflect.ValueOf(old.Exit), reflect.ValueOf(next.Exit))
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
	for _, key := range changed {
		if !live[key] {
			restart = append(restart, "exit."+key)
		}
	}
	if slices.Contains(changed, "names") && !sameNames(old.Exit.Names, next.Exit.Names) {
		restart = append(restart, "exit.names")
	}
	if next.Exit.RelayListen != "" && !reflect.DeepEqual(old.Relay, next.Relay) {
		restart = append(restart, "relay")
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
