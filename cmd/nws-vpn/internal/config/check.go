package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/platform"
)

// check finds values that are of the right type and make no sense.
func (d *decoder) check(c *Config) {
	is := func(err error, key ...string) {
		if err != nil {
			d.fail(toml.Key(key), "%v", err)
		}
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		is(fmt.Errorf("want debug, info, warn or error, not %q", c.LogLevel), "log_level")
	}
	for pet, text := range c.Names {
		_, err := name.NewBook(map[string]string{pet: text})
		is(err, "names", pet)
	}
	book, err := name.NewBook(c.Names)
	if len(d.problems) == 0 { // else it is one of those
		is(err, "names")
	}
	is(checkExit(c.Up.Exit, book), "up", "exit")
	is(CheckRelays(c.Up.Relays), "up", "relays")
	is(CheckKeyFile(c.Up.IdentityFile), "up", "identity_file")
	if c.Up.IdentityFile != "" && (c.Up.Exit == "" || c.Up.Exit == AutoExit) {
		is(errors.New("name the exit that the identity is for in exit: it is shown to no other"), "up", "identity_file")
	}
	is(CheckKeyFile(c.Up.RelayKeyFile), "up", "relay_key_file")
	if c.Up.RelayListen != "" {
		is(CheckListen(c.Up.RelayListen), "up", "relay_listen")
	}
	is(checkKeys(c.Up.Trust), "up", "trust")
	is(checkKeys(c.Up.TrustFollows), "up", "trust_follows")
	is(CheckSpread(c.Up.Spread), "up", "spread")
	is(checkDNSManager(c.Up.DNSManager), "up", "dns_manager")
	is(CheckUpMode(c.Up.Mode), "up", "mode")
	is(checkResolver(c.Up.NWSResolver), "up", "nws_resolver")
	is(checkPublic(c.Up.PublicAddress), "up", "public_address")
	is(checkDevice(c.Up.Device), "up", "device")
	is(within(c.Up.MTU, 1280, 65535), "up", "mtu")
	if c.Up.Mark == 0 {
		is(errors.New("want a mark other than 0, which every socket has"), "up", "mark")
	}
	is(checkTable(c.Up.Table), "up", "table")
	is(CheckKillSwitch(c.Up.KillSwitch), "up", "kill_switch")
	is(oneOf(c.Up.Forward, ForwardTunnel, ForwardBlock), "up", "forward")
	for _, p := range append(c.Up.checkFilter(), c.Up.checkSplit()...) {
		is(p.err, "up", p.key)
	}
	is(CheckKeyFile(c.Exit.KeyFile), "exit", "key_file")
	is(CheckRelays(c.Exit.Relays), "exit", "relays")
	if c.Exit.RelayListen != "" {
		is(CheckListen(c.Exit.RelayListen), "exit", "relay_listen")
	}
	is(CheckExitMode(c.Exit.Mode), "exit", "mode")
	is(oneOf(c.Exit.Policy, exit.Presets()...), "exit", "policy")
	is(within(len(c.Exit.Rules), 0, exit.MaxRules), "exit", "rules")
	is(oneOf(c.Exit.ConnectR, ConnectROff, ConnectRTLS, ConnectRClear), "exit", "connectr")
	is(checkPublic(c.Exit.PublicAddress), "exit", "public_address")
	d.checkExitSection(&c.Exit)
	d.checkRelay(&c.Relay)
}

func within(n, least, most int) error {
	if n < least || n > most {
		return fmt.Errorf("want a number from %d to %d, not %d", least, most, n)
	}
	return nil
}

// checkExit reads s as up does: a name in any form, PETNAME.nostr or AutoExit.
func checkExit(s string, book name.Book) error {
	if s == "" || s == AutoExit {
		return nil
	}
	_, err := name.Parse(s)
	_, inBook := book.Lookup(s)
	switch {
	case inBook == nil:
		return nil
	case name.Under(s):
		return inBook
	}
	return err
}

// CheckRelays finds what is no URL of a relay.
func CheckRelays(relays []string) error {
	for i, relay := range relays {
		u, err := url.Parse(relay)
		if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Hostname() == "" {
			return fmt.Errorf("%swant a relay's URL such as wss://relay.example, not %q", element(i, len(relays)), relay)
		}
	}
	return nil
}

// element names one of several.
func element(i, of int) string {
	if of == 1 {
		return ""
	}
	return fmt.Sprintf("element %d: ", i+1)
}

// maxKeys bounds a list of keys, which relays are asked about at once.
const maxKeys = 500

func checkKeys(keys []string) error {
	if len(keys) > maxKeys {
		return fmt.Errorf("want at most %d keys, not %d", maxKeys, len(keys))
	}
	for i, key := range keys {
		if _, err := envelope.ParsePublicKey(key); err != nil {
			return fmt.Errorf("element %d: want an npub: %w", i+1, err)
		}
	}
	return nil
}

// checkDNSManager finds out what is nobody who manages name servers.
func checkDNSManager(s string) error {
	if s == "" || !platform.ValidDNSManager(s) {
		return fmt.Errorf("want %q, or %q, %q, %q, %q or %q, not %q", platform.DNSAuto, platform.DNSResolved,
			platform.DNSNetworkManager, platform.DNSResolvconf, platform.DNSFile, platform.DNSNone, s)
	}
	return nil
}

// CheckSpread finds out what is no way to use several relays.
func CheckSpread(s string) error {
	if !slices.Contains(Spreads[:], s) {
		return fmt.Errorf("want %s, not %q", strings.Join(Spreads[:], " or "), s)
	}
	return nil
}

// CheckKillSwitch finds out what is no kill switch.
func CheckKillSwitch(s string) error { return oneOf(s, KillSwitches[:]...) }

// CheckFilter finds what is to be done by the packet filter while the kill switch
// is off, split tunnelling apart.
func CheckFilter(u *Up) error { return joined(u.checkFilter()) }

func (u *Up) checkFilter() (list []keyProblem) {
	if u.KillSwitch != KillSwitches[0] {
		return nil
	}
	if err := needsFilter(!u.Inbound); err != nil {
		list = append(list, keyProblem{"inbound", err})
	}
	if err := needsFilter(u.Forward == ForwardBlock); err != nil {
		list = append(list, keyProblem{"forward", err})
	}
	return list
}

func needsFilter(wanted bool) error {
	if wanted {
		return errors.New(`the packet filter does this: it needs kill_switch = "on" or "lockdown"`)
	}
	return nil
}

// CheckUpMode finds out what is nothing to speak with an exit.
func CheckUpMode(s string) error { return oneOf(s, ModeAuto, ModeSession, ModeNWS) }

// CheckExitMode finds out what is nobody to serve.
func CheckExitMode(s string) error { return oneOf(s, ModeAuto, ModeSession) }

func oneOf(s string, words ...string) error {
	if !slices.Contains(words, s) {
		return fmt.Errorf("want %s, not %q", strings.Join(words, " or "), s)
	}
	return nil
}

func checkResolver(s string) error {
	if s == "" {
		return nil
	}
	_, err := ParseNameserver(s)
	return err
}

func checkPublic(s string) error {
	if s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if n, nan := strconv.ParseUint(port, 10, 16); err != nil || nan != nil || n == 0 || host == "" {
		return fmt.Errorf("want host:port, such as 198.51.100.7:9333, not %q", s)
	}
	return nil
}

// checkDevice goes by what Linux takes for a name, the strictest of all.
func checkDevice(s string) error {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/:%") ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("want 1 to 15 letters, digits and hyphens, not %q", s)
	}
	return nil
}

func checkTable(n int) error {
	if n < 1 || n >= 253 && n <= 255 {
		return fmt.Errorf("want a number above 0 and not 253 to 255, which the system uses itself, not %d", n)
	}
	return nil
}

// CheckKeyFile finds the key itself where its file's path belongs. Its error does
// not repeat it.
func CheckKeyFile(s string) error {
	_, err := hex.DecodeString(s)
	if secrets.MatchString(s) || err == nil && len(s) == 64 {
		return errors.New("want the path of a file, not the key itself: put that into a file of mode 0600, and make a new one if others have read this file")
	}
	return nil
}

// CheckListen reports whether s is an address to listen on, host:port.
func CheckListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("want host:port, such as 127.0.0.1:7777, not %q", s)
	}
	return nil
}
