package cert

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Attestation is the word of a Nostr key for the key of a TLS server.
type Attestation struct {
	Key  envelope.PublicKey
	SPKI [32]byte // SHA-256 of the server's SubjectPublicKeyInfo
	// Certificate is nil when the event holds only the hash. It is no authority
	// and names nothing but .nostr names of Key.
	Certificate *x509.Certificate
	Created     time.Time
	Expires     time.Time
}

// Why an event attests to nothing.
var (
	ErrExpired = errors.New("cert: the attestation has expired")
	ErrFuture  = errors.New("cert: the attestation was made in the future: a clock is wrong")
	ErrForeign = errors.New("cert: the attestation is by another key")
	ErrNone    = errors.New("cert: no certificate of this key has been published")
)

const (
	maxContent  = 8 << 10
	maxTags     = 32
	maxNames    = 16
	maxRSA      = 8192 // bits
	minRSA      = 2048
	minECDSA    = 256
	maxAhead    = 10 * time.Minute     // the author's clock may be before ours
	maxLife     = 398 * 24 * time.Hour // of an attestation, whatever its expiration says
	maxAttested = 8                    // certificates of one key
	maxSearched = 64                   // events of one key
)

// SPKI returns what an attestation says of a certificate: the SHA-256 of its
// SubjectPublicKeyInfo.
func SPKI(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Append appends the signed event, made at now, that holds a certificate of the
// key's .nostr names to dst, and returns it with the event's id. It counts as
// long as the certificate.
func Append(dst []byte, key envelope.SecretKey, now time.Time, c *x509.Certificate) (event []byte, id [32]byte, err error) {
	if err := check(c, key.Public()); err != nil {
		return dst, id, err
	}
	return appendEvent(dst, key, now, SPKI(c), c.NotAfter, encode(c))
}

// AppendSPKI is Append for a server's key alone.
func AppendSPKI(dst []byte, key envelope.SecretKey, now time.Time, spki [32]byte, expires time.Time) (event []byte, id [32]byte, err error) {
	return appendEvent(dst, key, now, spki, expires, nil)
}

func appendEvent(dst []byte, key envelope.SecretKey, now time.Time, spki [32]byte, expires time.Time, content []byte) ([]byte, [32]byte, error) {
	if !expires.After(now) || expires.Sub(now) > maxLife {
		return dst, [32]byte{}, fmt.Errorf("cert: an attestation until %v: want one that ends within %v", expires.UTC(), maxLife)
	}
	digits := hex.EncodeToString(spki[:])
	return envelope.Sign(dst, key, envelope.Template{
		Kind:      envelope.KindCertificate,
		CreatedAt: now,
		Tags: [][]string{
			{"d", digits},
			{"p", key.Public().Hex()},
			{"spki", digits},
			{"alt", "TLS certificate of " + name.Name{Key: key.Public()}.Host()},
			{"expiration", strconv.FormatInt(expires.Unix(), 10)},
		},
		Content: content,
	})
}

// Verify reads an attestation by key as it counts at now. The error is
// [ErrForeign], [ErrExpired], [ErrFuture], envelope.ErrID, envelope.ErrSignature,
// or says what is wrong with the form. The result shares no memory with the
// event.
func Verify(ev *envelope.Event, key envelope.PublicKey, now time.Time) (*Attestation, error) {
	if ev.Kind != envelope.KindCertificate {
		return nil, fmt.Errorf("cert: kind %d is no attestation", ev.Kind)
	}
	if ev.PubKey != key {
		return nil, ErrForeign
	}
	a := &Attestation{Key: key, Created: time.Unix(ev.CreatedAt, 0)}
	if a.Created.After(now.Add(maxAhead)) {
		return nil, ErrFuture
	}
	if err := a.read(ev); err != nil {
		return nil, err
	}
	if last := a.Created.Add(maxLife); a.Expires.After(last) {
		a.Expires = last
	}
	if !a.Expires.After(now) {
		return nil, ErrExpired
	}
	if err := ev.Verify(); err != nil {
		return nil, err
	}
	return a, nil
}

// VerifyAll returns what counts of many events by one key, the newest first and
// one for each key of a server, at most 8. If that is none, the error says what
// is wrong with the newest event; it is [ErrNone] when there is no event.
func VerifyAll(events []*envelope.Event, key envelope.PublicKey, now time.Time) ([]*Attestation, error) {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(x, y *envelope.Event) int { return cmp.Compare(y.CreatedAt, x.CreatedAt) })
	var list []*Attestation
	var problem error
	for _, ev := range events[:min(len(events), maxSearched)] {
		a, err := Verify(ev, key, now)
		if err != nil {
			if problem == nil {
				problem = err
			}
			continue
		}
		known := slices.ContainsFunc(list, func(b *Attestation) bool { return a.SPKI == b.SPKI })
		if !known && len(list) < maxAttested {
			list = append(list, a)
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case problem == nil:
		return nil, ErrNone
	}
	return nil, problem
}

// read fills in what the event says.
func (a *Attestation) read(ev *envelope.Event) error {
	if len(ev.Content) > maxContent {
		return fmt.Errorf("cert: attestation of %d bytes, at most %d", len(ev.Content), maxContent)
	}
	spki, expires, err := readTags(ev)
	if err != nil {
		return err
	}
	a.Expires = expires
	if len(ev.Content) == 0 {
		if spki == nil || expires.IsZero() {
			return errors.New("cert: attestation with neither a certificate nor the hash and expiration of one")
		}
		a.SPKI = *spki
		return nil
	}
	if a.Certificate, err = decode(ev.Content); err != nil {
		return err
	}
	if err := check(a.Certificate, a.Key); err != nil {
		return err
	}
	a.SPKI = SPKI(a.Certificate)
	if spki != nil && *spki != a.SPKI {
		return errors.New("cert: the attestation's hash is not that of its certificate")
	}
	if expires.IsZero() || a.Certificate.NotAfter.Before(expires) {
		a.Expires = a.Certificate.NotAfter
	}
	return nil
}

func readTags(ev *envelope.Event) (spki *[32]byte, expires time.Time, err error) {
	n := 0
	for tag, value := range ev.Tags {
		if n++; n > maxTags {
			return nil, expires, fmt.Errorf("cert: attestation with more than %d tags", maxTags)
		}
		switch string(tag) {
		case "spki":
			if spki != nil || len(value) != hex.EncodedLen(len(spki)) {
				return nil, expires, errors.New("cert: attestation with a hash that is none, or two")
			}
			spki = new([32]byte)
			if _, err := hex.Decode(spki[:], value); err != nil {
				return nil, expires, errors.New("cert: attestation with a hash that is none, or two")
			}
		case "expiration":
			seconds, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil || seconds <= 0 || seconds > 1<<40 || !expires.IsZero() {
				return nil, expires, errors.New("cert: attestation with an expiration that is none, or two")
			}
			expires = time.Unix(seconds, 0)
		}
	}
	return spki, expires, nil
}

// PEM returns the certificate for programs that want to know what to trust, such
// as curl with --cacert; nil if the event does not hold it.
func (a *Attestation) PEM() []byte {
	if a.Certificate == nil {
		return nil
	}
	return encode(a.Certificate)
}

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// decode reads PEM text that is one certificate.
func decode(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("cert: attestation with something else than one certificate in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cert: attestation: %w", err)
	}
	return c, nil
}

// check refuses certificates that a program must not be told to trust: those
// that could vouch for others, and those that name anything but key's .nostr
// names.
func check(c *x509.Certificate, key envelope.PublicKey) error {
	// Programs take old forms without basic constraints for authorities.
	if c.Version != 3 || !c.BasicConstraintsValid || c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 {
		return errors.New("cert: the certificate could vouch for others")
	}
	if err := checkKey(c); err != nil {
		return err
	}
	if len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) > 0 {
		return errors.New("cert: the certificate names more than hosts")
	}
	if len(c.DNSNames) == 0 || len(c.DNSNames) > maxNames {
		return fmt.Errorf("cert: certificate with %d names, want 1 to %d", len(c.DNSNames), maxNames)
	}
	for _, host := range c.DNSNames {
		if !belongs(host, key) {
			return fmt.Errorf("cert: the certificate names a host that is not the key's own: %.80q", host)
		}
	}
	return nil
}

func checkKey(c *x509.Certificate) error {
	switch key := c.PublicKey.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize >= minECDSA {
			return nil
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits >= minRSA && bits <= maxRSA {
			return nil
		}
	}
	return errors.New("cert: the certificate's key is of a weak or unknown kind")
}

// belongs reports whether host is one of the key's names, with or without
// relays, or all those with one relay.
func belongs(host string, key envelope.PublicKey) bool {
	n, err := name.ParseHost(strings.TrimPrefix(host, "*."))
	return err == nil && n.Key == key
}
