package announce

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// readRelay adds a relay, each once.
func (a *Announcement) readRelay(text string, allow func(string) bool) {
	relay, err := name.Relay(text)
	if err != nil || name.PublicRelay(relay) != nil && !allow(relay) {
		a.LeftOut++
		return
	}
	if !slices.Contains(a.Relays, relay) {
		a.Relays = append(a.Relays, relay)
	}
}

func (a *Announcement) readTransport(values []string, allow func(string) bool) error {
	if len(values) < 2 {
		return errors.New("want a kind and an address")
	}
	t := Transport{Kind: values[0], Address: values[1]}
	host, err := t.host()
	if err != nil || !publicHost(host) && !allow(t.Address) {
		a.LeftOut++
		return nil
	}
	if !slices.Contains(a.Transports, t) {
		a.Transports = append(a.Transports, t)
	}
	return nil
}

// host returns where the transport leads; "" if that is to be looked up by key.
func (t Transport) host() (string, error) {
	if len(t.Address) > maxAddress || strings.ContainsFunc(t.Address, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("too long, or not printable ASCII")
	}
	address := t.Address
	switch t.Kind {
	case Direct:
	case WSN:
		u, err := url.Parse(t.Address)
		if err != nil || u.Scheme != "wsn" {
			return "", errors.New("no address of a relay by key")
		}
		key := u.User.Username()
		if u.User == nil { // wsn://<key>: its address is looked up
			key = u.Host
		}
		if _, err := envelope.ParsePublicKey(key); err != nil {
			return "", err
		}
		if u.User == nil {
			return "", nil
		}
		address = u.Host
	default:
		return "", errors.New("unknown kind")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if n, err := number(port, 65535); err != nil || n == 0 {
		return "", errors.New("no port")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	if host == "" || strings.ContainsAny(host, `/\@:?#[]%"`) {
		return "", errors.New("no host")
	}
	return host, nil
}

func publicHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return name.PublicAddr(addr)
	}
	return host == "" || name.PublicHost(host) == nil
}
