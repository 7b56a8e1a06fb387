package main

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// A configuration of which any part is wrong does not even for a moment hold: guests
// would be turned out, and follow lists forgotten, for good.
func TestReloadThatFailsForgetsNobody(t *testing.T) {
	r := bareExit(t, exit.Config{})
	r.level = new(slog.LevelVar)
	author, friend := envelopetest.NewKey(t).Public(), envelopetest.NewKey(t).Public()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	selfSigned(t, cert, key, 1)
	c := config.Default()
	c.Exit.Admission, c.Exit.WoT, c.Exit.Announce = config.AdmitFollowed, []string{author.NPub()}, true
	c.Exit.RelayListen, c.Relay.TLSCert, c.Relay.TLSKey = "127.0.0.1:0", cert, key
	own := envelopetest.NewKey(t)
	about, err := announcement(&c.Exit, own)
	if err == nil {
		r.embedded, err = embedRelay(&c.Relay, c.Exit.RelayListen, own.Public(), nil, t.Output(), quiet)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.embedded.Close)
	r.names = []*exitName{{key: own, about: newAnnouncer(about)}}
	r.started, r.cfg = c, c
	apply, err := r.prepareAdmission(c)
	if err == nil {
		err = apply()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.book.SetFollows([]announce.Follows{{Key: author, Created: time.Now(), Keys: []envelope.PublicKey{friend}}})

	for what, spoil := range map[string]func(c *config.Config){
		"relay":        func(c *config.Config) { c.Relay.TLSKey = filepath.Join(dir, "none") },
		"announcement": func(c *config.Config) { c.Exit.Contact = strings.Repeat("x", 1000) },
		"services":     func(c *config.Config) { c.Exit.Services = map[uint16]exit.Target{443: {Network: "tcp", TLS: true}} },
		"log level":    func(c *config.Config) { c.LogLevel = "loud" },
	} {
		next := *c
		next.Exit.Admission, next.Exit.WoT = config.AdmitListed, nil
		spoil(&next)
		if _, err := r.change(&next); err == nil || !strings.HasPrefix(err.Error(), what) {
			t.Errorf("a mistake in %s: %v", what, err)
		}
		if err := r.book.Check(nostrlink.Client{Key: friend, Proven: true}, time.Now()); err != nil {
			t.Errorf("after a mistake in %s a friend is told: %v", what, err)
		}
	}
	next := *c
	next.Exit.Admission, next.Exit.WoT, next.Exit.Instance = config.AdmitListed, nil, "second"
	report, err := r.change(&next)
	if err != nil || !slices.Equal(report.Changed, []string{"announcement", "admission"}) || !slices.Equal(report.Waiting, []string{"exit.instance"}) {
		t.Errorf("%+v, %v", report, err)
	}
	if said := r.names[0].about.say(); said.Instance != "" || said.Admission != config.AdmitListed {
		t.Errorf("announced: %+v", said)
	}
	if r.book.Check(nostrlink.Client{Key: friend, Proven: true}, time.Now()) == nil {
		t.Error("the new configuration does not hold")
	}
}
