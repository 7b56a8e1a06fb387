package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

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
	{"announcement", []string{"rules", "policy", "allow_private", "contact", "admission"}, (*exitRun).setAnnouncement},
}

// relayChange is that of the relay within the exit, in section [relay].
var relayChange = exitChange{"relay", nil, func(r *exitRun, c *config.Config) error { return r.embedded.server.change(&c.Relay) }}

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
	for i, c := range changes {
		if err := c.apply(r, next); err != nil {
			for _, done := range slices.Backward(changes[:i+1]) {
				if back := done.apply(r, old); back != nil {
					err = fmt.Errorf("%w; and what was changed before that does not go back: %w", err, back)
				}
			}
			return nil, fmt.Errorf("%s: %w", c.what, err)
		}
	}
	if err := setLevel(r.level, next.LogLevel); err != nil {
		return nil, err
	}
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
