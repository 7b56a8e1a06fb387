package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Why a TLS peer is not who it should be.
var (
	ErrMismatch  = errors.New("cert: the server's key is not the one that was attested: somebody is in between, or its certificate is newer than what was looked up")
	ErrNoProof   = errors.New("cert: the peer proves no Nostr key: its certificate holds no attestation")
	errNoneGiven = errors.New("cert: the peer showed no certificate")
)

// extension is where a certificate holds the event that attests to it: an OCTET
// STRING with the event's JSON. The arc is X.667's, for which nobody needs to
// be asked.
var extension = asn1.ObjectIdentifier{2, 25, 1743918062, 38334}

// VerifyConnection returns a check for tls.Config's field of that name, which
// runs on every handshake, resumed or not: the peer's key must be one of those
// attested, and now() within its time. The certificate's own dates and names
// mean nothing beside that. Use it with InsecureSkipVerify, since no authority
// knows these certificates; see ClientConfig. The error is [ErrMismatch] or
// [ErrExpired].
func VerifyConnection(now func() time.Time, attested []*Attestation) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		leaf, err := peer(cs)
		if err != nil {
			return err
		}
		spki := SPKI(leaf)
		for _, a := range attested {
			if a.SPKI == spki {
				return a.at(now())
			}
		}
		return ErrMismatch
	}
}

func (a *Attestation) at(now time.Time) error {
	if !a.Expires.After(now) {
		return ErrExpired
	}
	return nil
}

func peer(cs tls.ConnectionState) (*x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, errNoneGiven
	}
	return cs.PeerCertificates[0], nil
}

// ClientConfig returns the settings of a client that accepts the attested
// servers and no other; serverName is what it asks for.
func ClientConfig(serverName string, now func() time.Time, attested []*Attestation) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         serverName,
		InsecureSkipVerify: true, // instead of an authority:
		VerifyConnection:   VerifyConnection(now, attested),
	}
}

// NewAttested makes a certificate with a new key that proves a Nostr key by
// itself: the event that attests to it is inside. attest returns that event, as
// AppendSPKI makes it; it may ask a machine that has the Nostr key. The
// certificate is meant for TLS 1.3, which does not show it to those who watch.
func NewAttested(now, expires time.Time, attest func(spki [32]byte) (event []byte, err error)) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	event, err := attest(sha256.Sum256(spki))
	if err != nil {
		return nil, fmt.Errorf("cert: attestation: %w", err)
	}
	value, err := asn1.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("cert: attestation: %w", err)
	}
	return issueFor(key, &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}},
		NotBefore:             now.Add(-backdated),
		NotAfter:              expires,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: extension, Value: value}},
	}, nil)
}

// VerifyAttested returns a check for tls.Config's VerifyConnection, of either
// side: the peer's certificate must hold an attestation by key that counts at
// now(). Use it like VerifyConnection. The error is [ErrNoProof], [ErrMismatch]
// or what Verify returns.
func VerifyAttested(key envelope.PublicKey, now func() time.Time) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		leaf, err := peer(cs)
		if err != nil {
			return err
		}
		text, err := attestationIn(leaf)
		if err != nil {
			return err
		}
		ev, err := envelope.ParseEvent(text)
		if err != nil {
			return fmt.Errorf("cert: the peer's attestation: %w", err)
		}
		a, err := Verify(&ev, key, now())
		if err != nil {
			return err
		}
		if a.SPKI != SPKI(leaf) {
			return ErrMismatch
		}
		return nil
	}
}

// attestationIn returns the event inside a certificate.
func attestationIn(c *x509.Certificate) ([]byte, error) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(extension) {
			continue
		}
		var text []byte
		rest, err := asn1.Unmarshal(e.Value, &text)
		if err != nil || len(rest) > 0 || len(text) > maxContent {
			return nil, errors.New("cert: the peer's certificate holds something that is no attestation")
		}
		return text, nil
	}
	return nil, ErrNoProof
}
