package exit

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// destination is what a request asks for: exactly one of addr, host and exit
// is set.
type destination struct {
	addr netip.Addr // never an IPv4-mapped one, never with a zone
	host string     // lower case, no final dot
	exit *[32]byte  // the key in a .nostr name
	port uint16     // 0 for a ping, or with exit: the name came without a port
}

// parseDestination reads "host:port", where host is an IP address, a name of
// the DNS or the name of an exit; the latter may stand without a port. Its
// errors are *Refusals.
func parseDestination(s string) (destination, error) {
	if len(s) > wire.MaxDest {
		return destination{}, refuse(ReasonMalformed, "the destination is longer than %d bytes", wire.MaxDest)
	}
	if name.Under(s) && !strings.Contains(s, ":") {
		return parseHost(s)
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil || s[0] == '[' && !strings.Contains(host, ":") {
		return destination{}, refuse(ReasonMalformed, "the destination is not of the form host:port")
	}
	d, err := parseHost(host)
	if err != nil {
		return destination{}, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	// 080 and 0080 would be other spellings of the same port.
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != portText {
		return destination{}, refuse(ReasonMalformed, "a port is a number from 1 to 65535")
	}
	d.port = uint16(port)
	return d, nil
}

func parseHost(host string) (destination, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return destination{}, refuse(ReasonMalformed, "an address with a zone means nothing here")
		}
		return destination{addr: a.Unmap()}, nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if name.Under(host) || isNIP19(host) {
		n, err := name.Parse(host)
		if err != nil {
			return destination{}, refuse(ReasonNameNotFound, "not the name of an exit (petnames are known only where they were given)")
		}
		return destination{exit: &n.Key}, nil
	}
	if !isHostName(host) {
		return destination{}, refuse(ReasonMalformed, "the destination is neither a host name nor an address in its usual form")
	}
	return destination{host: host}, nil
}

// isNIP19 reports whether host is meant to be an npub or an nprofile.
func isNIP19(host string) bool {
	return !strings.Contains(host, ".") && (strings.HasPrefix(host, "npub1") || strings.HasPrefix(host, "nprofile1"))
}

// isHostName reports whether s, in lower case, can be asked of the DNS: labels
// of letters, digits, hyphens and underscores. A last label that is a number,
// decimal or hexadecimal, makes s an address in an unusual form, such as
// 2130706433 or 0x7f.1, which some resolvers take for 127.0.0.1.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
		last = label
	}
	return !isNumber(last)
}

func isNumber(label string) bool {
	digits, set := label, "0123456789"
	if rest, ok := strings.CutPrefix(label, "0x"); ok {
		digits, set = rest, "0123456789abcdef"
	}
	return strings.Trim(digits, set) == ""
}

// what describes d to the one who asked for it.
func (d destination) what() string {
	switch {
	case d.addr.IsValid() && d.port == 0:
		return d.addr.String()
	case d.addr.IsValid():
		return netip.AddrPortFrom(d.addr, d.port).String()
	case d.port == 0:
		return d.host
	}
	return d.host + ":" + strconv.Itoa(int(d.port))
}
