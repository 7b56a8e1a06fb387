package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// checkRelay is check for the section of the relay.
func (d *decoder) checkRelay(r *Relay) {
	is := func(err error, key string) {
		if err != nil {
			d.fail(toml.Key{"relay", key}, "%v", err)
		}
	}
	is(CheckListen(r.Listen), "listen")
	if r.URL != "" {
		is(CheckRelays([]string{r.URL}), "url")
	}
	_, err := relayd.ParseKinds(r.Keep)
	is(err, "keep")
	is(checkKeys(r.Members), "members")
	is(within(r.MinPoW, 0, 64), "min_pow")
	if (r.TLSCert == "") != (r.TLSKey == "") {
		is(errors.New("want both tls_cert and tls_key, or neither"), "tls_cert")
	}
	for _, host := range r.ACMEHosts {
		if !strings.Contains(host, ".") || strings.ContainsAny(host, ":/* ") {
			is(fmt.Errorf("want a host's name, such as relay.example, not %q", host), "acme_hosts")
		}
	}
	is(CheckMetrics(r.Metrics), "metrics")
	for _, n := range []struct {
		value, least, most int
		key                string
	}{
		{r.MaxKept, 1, 1 << 24, "max_kept"},
		{bounded(r.MaxKeptBytes), 1 << 16, 1 << 30, "max_kept_bytes"},
		{bounded(r.MaxEventBytes), 1024, 1 << 24, "max_event_bytes"},
		{r.MaxConnections, 1, 1 << 20, "max_connections"},
		{r.MaxConnectionsPerAddress, 1, 1 << 20, "max_connections_per_address"},
		{r.MaxSubscriptions, 1, 1 << 16, "max_subscriptions"},
		{r.EventsPerSecond, 0, 1 << 30, "events_per_second"},
		{bounded(r.BytesPerSecond), 0, 1 << 30, "bytes_per_second"},
		{r.RequestsPerSecond, 0, 1 << 30, "requests_per_second"},
		{r.AddressEventsPerSecond, 0, 1 << 30, "address_events_per_second"},
		{bounded(r.AddressBytesPerSecond), 0, 1 << 30, "address_bytes_per_second"},
		{r.AddressRequestsPerSecond, 0, 1 << 30, "address_requests_per_second"},
		{r.KeyEventsPerSecond, 0, 1 << 30, "key_events_per_second"},
		{bounded(r.KeyBytesPerSecond), 0, 1 << 30, "key_bytes_per_second"},
	} {
		is(within(n.value, n.least, n.most), n.key)
	}
}

// bounded is a size as a number that every machine's int holds; all limits are
// below the largest.
func bounded(s Size) int { return int(min(s, math.MaxInt32)) }

// CheckMetrics finds a place for figures that others could read.
func CheckMetrics(s string) error {
	if path, ok := strings.CutPrefix(s, "unix:"); ok && path != "" || s == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(s)
	if err == nil && CheckListen(s) == nil {
		if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() {
			return nil
		}
	}
	return fmt.Errorf("want an address on loopback, such as 127.0.0.1:9464, or unix:/path, not %q: figures are for this machine only", s)
}
