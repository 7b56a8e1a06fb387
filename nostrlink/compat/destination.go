package compat

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// The text's example has a bare host as destination, and HTTP as data.
const defaultPort = "80"

// requested turns the destination of a CONNECT into what exit.Request's Address
// is: host:port, or the name of an exit without a port, for the service of that
// exit. Whether it may be dialed is for the exit to say.
func requested(text string) (string, error) {
	if text == "" || len(text) > wire.MaxDest || strings.ContainsFunc(text, unusual) {
		return "", denied("the destination is no host")
	}
	if host, _, err := net.SplitHostPort(text); err == nil {
		if host == "" {
			return "", denied("the destination names no host")
		}
		return text, nil
	}
	if name.Under(text) {
		return text, nil
	}
	if n, err := name.Parse(text); err == nil {
		return n.Host(), nil
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return net.JoinHostPort(a.String(), defaultPort), nil
	}
	if strings.ContainsAny(text, "[]:") {
		return "", denied("the destination is not of the form host:port")
	}
	return net.JoinHostPort(text, defaultPort), nil
}

// asked turns the address that is dialed into the destination as a reference
// exit wants it: the name of that exit without a port, else host:port.
func asked(address string, exit envelope.PublicKey) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || len(address) > wire.MaxDest || strings.ContainsFunc(address, unusual) {
		return "", denied("the destination is not of the form host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", denied("a port is a number from 1 to 65535")
	}
	nip19 := strings.HasPrefix(host, "npub1") || strings.HasPrefix(host, "nprofile1")
	if !name.Under(host) && (!nip19 || strings.Contains(host, ".")) {
		return address, nil
	}
	n, err := name.Parse(host)
	switch {
	case err != nil:
		return "", &wire.Error{Code: wire.CodeNameNotFound, Text: "not the name of an exit"}
	case n.Key != exit:
		return "", denied("the name of another exit")
	case nip19:
		return n.Host(), nil
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), nil
}

// unusual are characters that no destination has, and JSON would write longer.
func unusual(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) }

func denied(text string) error { return &wire.Error{Code: wire.CodeDenied, Text: text} }
