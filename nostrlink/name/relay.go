package name

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Relay writes equal addresses of a relay alike: scheme and host in lower case,
// no default port, no slash at the end, ws and wss for http and https, which is
// how some exits write their relays. It fails on what is no address of a relay.
func Relay(text string) (string, error) {
	text = strings.TrimSpace(text)
	if err := checkRelay(text); err != nil {
		return "", fmt.Errorf("name: relay: %w", err)
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("name: relay: not a URL")
	}
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.Host = strings.ToLower(u.Host)
	switch port := u.Port(); {
	case u.Scheme == "ws" && port == "80", u.Scheme == "wss" && port == "443", port == "":
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	u.Fragment, u.RawFragment = "", ""
	text = u.String()
	if err := checkRelay(text); err != nil { // escapes may have made it too long
		return "", fmt.Errorf("name: relay: %w", err)
	}
	return text, nil
}

// PublicRelay returns why a relay must not be dialled on a stranger's word (a
// name's, an announcement's), or nil: it is to be reached over TLS by a public
// host name, so that strangers cannot make this machine talk to its own
// network. What a public host name resolves to is for the dialler to see; the
// handshake of TLS ends what some other machine answers.
//
// Users may name any relay themselves: ask only about relays that they did not.
func PublicRelay(text string) error {
	relay, err := Relay(text)
	if err != nil {
		return err
	}
	u, err := url.Parse(relay)
	if err != nil {
		return errors.New("name: relay: not a URL")
	}
	if u.Scheme != "wss" {
		return errors.New("name: relay: not reached over TLS (wss://)")
	}
	if u.User != nil {
		return errors.New("name: relay: has a user name")
	}
	return PublicHost(u.Hostname())
}

// localDomains are names that lead nowhere or into somebody's own network. (RFC
// 6761, RFC 6762, RFC 8375, RFC 9476, RFC 7686, ICANN's .internal, and what
// home routers use)
var localDomains = []string{
	"localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan",
	"home.arpa", "arpa", "alt", "onion", "invalid", "test", tld,
}

// PublicHost returns why host is no name that the public DNS could know, or
// nil. An IP address is none, in whichever spelling a resolver takes for one.
func PublicHost(host string) error {
	host = normal(host)
	if host == "" || len(host) > maxHost {
		return fmt.Errorf("name: host of %d characters", len(host))
	}
	labels := strings.Split(host, ".")
	if len(labels) < 2 {
		return errors.New("name: host without a domain, or an IP address")
	}
	for _, label := range labels {
		if err := checkHostLabel(label); err != nil {
			return err
		}
	}
	// No top-level domain begins with a digit; 127.1 and 10.0x1 are addresses.
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		return errors.New("name: host is an IP address")
	}
	if slices.ContainsFunc(localDomains, func(d string) bool { return strings.HasSuffix(host, "."+d) }) {
		return errors.New("name: host of a local or reserved domain")
	}
	return nil
}

func checkHostLabel(label string) error {
	if label == "" || len(label) > maxLabel {
		return fmt.Errorf("name: host with a label of %d characters", len(label))
	}
	for _, c := range []byte(label) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return errors.New("name: host with a character that host names do not have")
		}
	}
	return nil
}

// PublicAddr reports whether strangers may make this machine dial the address:
// not its own, not one of its network, none with a special purpose (RFC 6890).
func PublicAddr(a netip.Addr) bool {
	if a.Zone() != "" || !a.IsValid() {
		return false
	}
	a = a.Unmap()
	if a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(specialRanges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// globalUnicast is all of IPv6 that is public. specialRanges are what the
// methods of netip.Addr do not cover; 6to4 and NAT64 are among them because an
// IPv4 address hides inside. Neither is written to.
var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	specialRanges = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("168.63.129.16/32"), // a metadata service
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("192.88.99.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("2001::/23"),
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("2002::/16"),
		netip.MustParsePrefix("3fff::/20"),
	}
)
