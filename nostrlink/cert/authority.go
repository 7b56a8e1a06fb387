package cert

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Authority is a certificate authority for this machine's own programs. What it
// signs is good for hosts under .nostr and for nothing else, by constraints in
// its own certificate that programs enforce: whoever steals its key still cannot
// be anybody's bank. The methods may be called concurrently.
type Authority struct {
	pair *tls.Certificate

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 7 * 24 * time.Hour
	maxLeaves     = 256
)

// OpenAuthority reads the authority from the file at path, or makes one when
// there is no file. The file holds its private key, and is for its owner alone.
func OpenAuthority(path string, now time.Time) (*Authority, error) {
	pair, err := readPair(path)
	if errors.Is(err, fs.ErrNotExist) {
		pair, err = createAuthority(path, now)
	}
	if err != nil {
		return nil, err
	}
	c := pair.Leaf
	if !c.IsCA || len(c.PermittedDNSDomains) != 1 || c.PermittedDNSDomains[0] != "nostr" || !c.PermittedDNSDomainsCritical {
		return nil, fmt.Errorf("cert: %s holds no authority for .nostr: name another file", path)
	}
	if !now.Before(c.NotAfter) {
		return nil, fmt.Errorf("cert: the authority in %s ended %v: remove it from the system's store, and the file, to have a new one made", path, c.NotAfter.UTC())
	}
	return &Authority{pair: pair, leaves: make(map[string]*tls.Certificate)}, nil
}

func createAuthority(path string, now time.Time) (*tls.Certificate, error) {
	everyIPv4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	everyIPv6 := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	pair, err := issue(&x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: "nws-vpn .nostr sites on this machine"},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		// A constraint on one kind of name leaves the other kinds free.
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{"nostr"},
		PermittedEmailAddresses:     []string{"nostr"},
		PermittedURIDomains:         []string{"nostr"},
		ExcludedIPRanges:            []*net.IPNet{everyIPv4, everyIPv6},
	}, nil)
	if err != nil {
		return nil, err
	}
	if err := writePair(path, pair, false); err == nil || !errors.Is(err, fs.ErrExist) {
		return pair, err
	}
	return readPair(path) // somebody else was faster
}

// PEM returns the authority's certificate, for curl's --cacert and for the
// stores of systems and browsers. It holds nothing secret.
func (a *Authority) PEM() []byte { return encode(a.pair.Leaf) }

// Certificate returns the authority's certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.pair.Leaf }

// Leaf returns a certificate for one host under .nostr, whatever names it, made
// now or a while ago. The caller has verified the host's site, or will before it
// passes anything on: see Bridge.
func (a *Authority) Leaf(host string, now time.Time) (*tls.Certificate, error) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if err := checkHost(host); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.leaves[host]; c != nil && now.Before(renewAt(c.Leaf)) && now.After(c.Leaf.NotBefore) {
		return c, nil
	}
	notAfter := now.Add(leafLife)
	if end := a.pair.Leaf.NotAfter; end.Before(notAfter) {
		notAfter = end
	}
	c, err := issue(&x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}},
		NotBefore:             now.Add(-backdated),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{host},
	}, a.pair)
	if err != nil {
		return nil, err
	}
	if _, known := a.leaves[host]; !known && len(a.leaves) >= maxLeaves {
		for other := range a.leaves { // any one: to make it again is cheap
			delete(a.leaves, other)
			break
		}
	}
	a.leaves[host] = c
	return c, nil
}

// checkHost admits host names under .nostr that a certificate can hold.
func checkHost(host string) error {
	labels := strings.Split(host, ".")
	if !name.Under(host) || len(labels) < 2 || len(host) > 253 {
		return fmt.Errorf("cert: %.80q is no host under .nostr", host)
	}
	for _, label := range labels {
		odd := func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
		}
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, odd) {
			return fmt.Errorf("cert: %.80q is no host name", host)
		}
	}
	return nil
}
