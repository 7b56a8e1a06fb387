package config

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
)

// ExitName is another name of the exit: a key with services of its own.
type ExitName struct {
	KeyFile         string                 `toml:"key_file"`
	CertificateFile string                 `toml:"certificate_file"`
	Relays          []string               `toml:"relays"`
	Announce        bool                   `toml:"announce"`
	Services        map[uint16]exit.Target `toml:"services"`
}

// Limits are what a client may take of the exit.
func (e *Exit) Limits() exit.Limits {
	return exit.Limits{
		Flows: e.MaxClientFlows, FlowsPerSecond: e.FlowsPerSecond, QueriesPerSecond: e.QueriesPerSecond,
		BytesPerSecond: int64(e.BytesPerSecond), TotalBytesPerSecond: int64(e.TotalBytesPerSecond),
		Day: int64(e.QuotaDay), Month: int64(e.QuotaMonth),
		FlowIdle: e.FlowIdle.Duration(), FlowLife: e.FlowLife.Duration(), Clients: e.MaxClients,
	}
}

// defaultFlowIdle is beyond what systems take to look after connections that are
// idle (two hours), so that those which are alive stay.
const defaultFlowIdle = Duration(2*time.Hour + 10*time.Minute)

// maxWoT bounds the follow lists that an exit keeps in memory.
const maxWoT = 50

// maxNames bounds the names of one exit, each with connections to relays of its
// own.
const maxNames = 64

var exitName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// checkExitSection is check for the section of the exit, beside its names.
func (d *decoder) checkExitSection(e *Exit) {
	is := func(err error, key ...string) {
		if err != nil {
			d.fail(append(toml.Key{"exit"}, key...), "%v", err)
		}
	}
	for _, n := range []struct {
		value, least, most int
		key                string
	}{
		{e.MaxSessions, 1, 1 << 20, "max_sessions"},
		{e.MaxFlows, 1, 1 << 20, "max_flows"},
		{e.MaxClients, 1, 1 << 20, "max_clients"},
		{e.MaxClientFlows, 0, 1 << 20, "max_client_flows"},
		{e.MaxClientSessions, 0, 1 << 20, "max_client_sessions"},
		{e.FlowsPerSecond, 0, 1 << 20, "flows_per_second"},
		{e.QueriesPerSecond, 0, 1 << 20, "queries_per_second"},
	} {
		is(within(n.value, n.least, n.most), n.key)
	}
	is(oneOf(e.Admission, AdmitAll, AdmitListed, AdmitFollowed), "admission")
	is(checkKeys(e.Allow), "allow")
	is(checkKeys(e.WoT), "wot")
	if len(e.WoT) > maxWoT {
		is(fmt.Errorf("want at most %d keys, not %d", maxWoT, len(e.WoT)), "wot")
	}
	if e.Admission == AdmitFollowed && len(e.WoT) == 0 {
		is(errors.New("whose follow lists are to decide: name them with wot"), "admission")
	}
	// Whoever lists people means that others are kept out.
	switch {
	case checkKeys(e.WoT) != nil || checkKeys(e.Allow) != nil:
	case len(e.WoT) > 0 && e.Admission != AdmitFollowed:
		is(fmt.Errorf("this has no effect with admission = %q: set that to %q, or leave this out", e.Admission, AdmitFollowed), "wot")
	case len(e.Allow) > 0 && e.Admission == AdmitAll:
		is(fmt.Errorf("this has no effect with admission = %q, which lets everybody in: set that to %q, or leave this out", e.Admission, AdmitListed), "allow")
	}
	is(announce.CheckText(e.Contact), "contact")
	is(CheckMetrics(e.Metrics), "metrics")
	if len(e.Names) > maxNames {
		is(fmt.Errorf("want at most %d names, not %d", maxNames, len(e.Names)), "names")
	}
	files := map[string]bool{e.KeyFile: true}
	for label, n := range e.Names {
		if !exitName.MatchString(label) {
			is(errors.New("want up to 32 small letters, digits and hyphens as the name"), "names", label)
		}
		switch {
		case n.KeyFile == "":
			is(errors.New("want a key_file for this name"), "names", label)
		case files[n.KeyFile]:
			is(fmt.Errorf("want a key of its own, and %s is that of another name", n.KeyFile), "names", label, "key_file")
		}
		files[n.KeyFile] = true
		is(CheckKeyFile(n.KeyFile), "names", label, "key_file")
		is(CheckRelays(n.Relays), "names", label, "relays")
	}
}
