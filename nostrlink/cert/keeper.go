package cert

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Keeper keeps the certificate of a Nostr key's own .nostr names in a file and
// makes a new one, with a new key, when two thirds of its time have gone by. The
// methods may be called concurrently.
type Keeper struct {
	path  string
	key   envelope.PublicKey
	hosts []string

	renewing sync.Mutex

	mu   sync.Mutex
	pair *tls.Certificate
}

const (
	// validity is how long a certificate is valid, and backdated how long
	// already when it is made, for clocks that are behind.
	validity  = 30 * 24 * time.Hour
	backdated = time.Hour
)

// OpenKeeper reads the certificate of a key from the file at path, or makes one
// when there is none or its time has come. hosts are further names of the same
// key, such as those with relays. The file holds the private key as well, and
// is for its owner alone.
func OpenKeeper(path string, key envelope.PublicKey, hosts []string, now time.Time) (*Keeper, error) {
	names, err := hostsOf(key, hosts)
	if err != nil {
		return nil, err
	}
	k := &Keeper{path: path, key: key, hosts: names}
	k.pair, err = readPair(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if k.pair != nil && k.pair.Leaf.IsCA {
		return nil, fmt.Errorf("cert: %s holds an authority, which stays as it is: name another file", path)
	}
	if _, err := k.Renew(now); err != nil {
		return nil, err
	}
	return k, nil
}

// hostsOf returns all names of a key that a certificate is for: without relays,
// with any one, and the further ones.
func hostsOf(key envelope.PublicKey, more []string) ([]string, error) {
	bare := name.Name{Key: key}.Host()
	hosts := []string{bare, "*." + bare, key.NPub() + ".nostr"}
	for _, host := range more {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if !belongs(host, key) {
			return nil, fmt.Errorf("cert: %.80q is no name of %s", host, key)
		}
		if labels := strings.Count(host, "."); labels > 2 && !slices.Contains(hosts, host) { // the wildcard covers one relay
			hosts = append(hosts, host)
		}
	}
	if len(hosts) > maxNames {
		return nil, fmt.Errorf("cert: %d names, at most %d", len(hosts), maxNames)
	}
	return hosts, nil
}

// Renew makes a new certificate, if it is time, and reports whether it did: then
// an event about it (see Append) should be published at once, since it is in use
// from now on.
func (k *Keeper) Renew(now time.Time) (renewed bool, err error) {
	k.renewing.Lock()
	defer k.renewing.Unlock()
	k.mu.Lock()
	old := k.pair
	k.mu.Unlock()
	if old != nil && k.good(old.Leaf, now) {
		return false, nil
	}
	pair, err := issue(&x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: k.key.NPub()},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              k.hosts,
	}, nil)
	if err != nil {
		return false, err
	}
	if err := writePair(k.path, pair, true); err != nil {
		return false, err
	}
	k.mu.Lock()
	k.pair = pair
	k.mu.Unlock()
	return true, nil
}

// good reports whether a certificate can stay in use.
func (k *Keeper) good(c *x509.Certificate, now time.Time) bool {
	return check(c, k.key) == nil && slices.Equal(c.DNSNames, k.hosts) &&
		now.After(c.NotBefore) && now.Before(renewAt(c))
}

func renewAt(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}

// RenewAt is when Renew will have something to do.
func (k *Keeper) RenewAt() time.Time { return renewAt(k.Certificate()) }

// Certificate returns the one in use.
func (k *Keeper) Certificate() *x509.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pair.Leaf
}

// ServerConfig returns the settings of a server that presents the certificate in
// use at each time. It may be changed.
func (k *Keeper) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.pair, nil
		},
	}
}
