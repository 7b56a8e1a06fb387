package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"sync"
	"syscall"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
)

// relayRun is the relay of a process of its own.
type relayRun struct {
	load   func() (*config.Config, error) // with the flags over it
	server *relayServer
	log    *slog.Logger
	level  *slog.LevelVar
	cfg    *config.Config // that was read last
}

// runRelay runs a relay until ctx ends. For each SIGHUP it loads the configuration
// again.
func runRelay(ctx context.Context, out io.Writer, load func() (*config.Config, error)) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cfg, err := load()
	if err != nil {
		return err
	}
	r := &relayRun{load: load, level: new(slog.LevelVar), cfg: cfg}
	if r.log, err = newLeveledLogger(cfg.LogLevel, r.level); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		r.log.Warn("the relay runs as root, and needs no privileges: use another user, as the unit nws-vpn-relay.service does")
	}
	if r.server, err = openRelay(&cfg.Relay, nil, nil, out, r.log); err != nil {
		return err
	}
	service.Current().Notify("READY=1") // it listens
	ctx, cancel := context.WithCancel(ctx)
	var reloading sync.WaitGroup
	defer reloading.Wait()
	defer cancel()
	reloading.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				r.reload()
			}
		}
	})
	err = r.server.Serve(ctx)
	if err == nil {
		r.log.Info("stopped", "why", endOf(ctx))
	}
	return err
}

// reload reads the configuration again and has it hold from now on, as far as that
// is possible in a running relay; clients stay connected, but those who are no
// members any more. If anything is wrong with it, all stays as it was. The outcome
// is logged.
func (r *relayRun) reload() {
	next, err := r.load()
	var level slog.LevelVar
	if err == nil {
		err = setLevel(&level, next.LogLevel)
	}
	var apply func()
	if err == nil {
		apply, err = r.server.prepare(&next.Relay)
	}
	if err != nil {
		r.log.Error("the new configuration is not taken, the old one stays", "err", err)
		return
	}
	apply()
	changed, restart := planRelayReload(&r.cfg.Relay, &next.Relay)
	if next.LogLevel != r.cfg.LogLevel {
		changed = append(changed, "log_level")
	}
	r.cfg = next
	r.level.Set(level.Level())
	r.log.Info("configuration reloaded", "changed", changed)
	if len(restart) > 0 {
		r.log.Warn("some of what has changed holds from the next start on", "keys", restart)
	}
}

// relayFixed are the keys of section [relay] that only a start takes.
var relayFixed = []string{
	"listen", "url", "database", "keep", "acme_hosts", "acme_dir", "acme_email", "acme_directory", "behind_proxy", "metrics", "log_events",
}

// planRelayReload says which keys lead from one configuration to another, and
// which of them only after a restart.
func planRelayReload(old, next *config.Relay) (changed, restart []string) {
	fixed := relayFixed
	if (old.TLSCert == "") != (next.TLSCert == "") {
		fixed = append(slices.Clip(fixed), "tls_cert", "tls_key")
	}
	for _, key := range changedKeys(reflect.ValueOf(*old), reflect.ValueOf(*next)) {
		if slices.Contains(fixed, key) {
			restart = append(restart, "relay."+key)
		} else {
			changed = append(changed, "relay."+key)
		}
	}
	return changed, restart
}
