package direct

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"time"
)

// Secret is what the two ends of a session share and nobody else knows, used
// for nothing but this package.
type Secret [32]byte

// String returns a placeholder.
func (Secret) String() string { return "[secret]" }

// GoString returns a placeholder.
func (Secret) GoString() string { return "[secret]" }

// LogValue returns a placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// End is one of the two ends of a session.
type End int

// The ends of a session.
const (
	Entry End = iota // dialed the session
	Exit             // listened for it
)

// ErrStranger ends a connection whose other end is not the session's.
var ErrStranger = errors.New("direct: the other end is not that of the session")

// badge is how one end of a session is known to the other.
type badge struct {
	name string // of the session, on the wire
	own  tls.Certificate
	peer ed25519.PublicKey
}

// newBadge derives the badge of an end.
func newBadge(s Secret, end End) (*badge, error) {
	if s == (Secret{}) {
		return nil, errors.New("direct: no secret")
	}
	name, err := s.derive("name", 16)
	if err != nil {
		return nil, err
	}
	var keys [2]ed25519.PrivateKey
	for i, label := range [...]string{Entry: "entry", Exit: "exit"} {
		seed, err := s.derive(label, ed25519.SeedSize)
		if err != nil {
			return nil, err
		}
		keys[i] = ed25519.NewKeyFromSeed(seed)
	}
	own, err := certificate(keys[end])
	if err != nil {
		return nil, err
	}
	return &badge{
		name: hex.EncodeToString(name),
		own:  own,
		peer: keys[1-end].Public().(ed25519.PublicKey),
	}, nil
}

func (s Secret) derive(label string, n int) ([]byte, error) {
	b, err := hkdf.Expand(sha256.New, s[:], "nws direct 1 "+label, n)
	if err != nil {
		return nil, fmt.Errorf("direct: %w", err)
	}
	return b, nil
}

// certificate wraps a key, as TLS wants it. Nothing in it but the key counts.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("direct: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// config is the TLS of either side.
func (b *badge) config() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{b.own},
		ServerName:             b.name,
		InsecureSkipVerify:     true, // no authority knows the other end:
		VerifyConnection:       b.verify,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, // each connection proves itself
	}
}

// verify holds the other end to the one key that it can have.
func (b *badge) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 1 {
		if key, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey); ok && key.Equal(b.peer) {
			return nil
		}
	}
	return ErrStranger
}
