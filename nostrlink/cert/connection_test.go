package cert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func TestVerifyConnection(t *testing.T) {
	key := envelopetest.NewKey(t)
	real := time.Now()
	k := newKeeper(t, key, real)
	address := echo(t, k.ServerConfig())
	host := name.Name{Key: key.Public()}.Host()
	mine := attested(t, k, key, real)
	other := envelopetest.NewKey(t)
	foreign := attested(t, newKeeper(t, other, real), other, real)

	for _, c := range []struct {
		what string
		list []*Attestation
		at   time.Time
		err  error
	}{
		{"attested", []*Attestation{mine}, real, nil},
		{"one of two", []*Attestation{foreign, mine}, real, nil},
		{"somebody in between", []*Attestation{foreign}, real, ErrMismatch},
		{"nothing looked up", nil, real, ErrMismatch},
		{"expired", []*Attestation{mine}, mine.Expires, ErrExpired},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := ClientConfig(host, func() time.Time { return c.at }, c.list)
			config.MaxVersion = version
			text, err := greet(address, config)
			if !errors.Is(err, c.err) || err == nil && text != "hello" {
				t.Errorf("%s: %q, %v", c.what, text, err)
			}
		}
	}
	if err := VerifyConnection(time.Now, []*Attestation{mine})(tls.ConnectionState{}); !errors.Is(err, errNoneGiven) {
		t.Errorf("without a certificate: %v", err)
	}
}

// The check runs when a connection resumes an earlier one, too.
func TestResumption(t *testing.T) {
	key := envelopetest.NewKey(t)
	real := time.Now()
	k := newKeeper(t, key, real)
	address := echo(t, k.ServerConfig())
	a := attested(t, k, key, real)
	at := real
	config := ClientConfig(name.Name{Key: key.Public()}.Host(), func() time.Time { return at }, []*Attestation{a})
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	resumed := false
	check := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		resumed = cs.DidResume
		return check(cs)
	}
	for range 2 {
		if _, err := greet(address, config); err != nil {
			t.Fatal(err)
		}
	}
	if !resumed {
		t.Fatal("the second connection did not resume the first one")
	}
	at = a.Expires
	_, err := greet(address, config)
	wantErr(t, "resumed after the end", err, ErrExpired)
	if !resumed {
		t.Error("the third connection did not resume")
	}
}

func newAttested(t *testing.T, key envelope.SecretKey, at, expires time.Time) *tls.Certificate {
	t.Helper()
	c, err := NewAttested(at, expires, func(spki [32]byte) ([]byte, error) {
		event, _, err := AppendSPKI(nil, key, at, spki, expires)
		return event, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Both ends prove their Nostr keys, and nothing was looked up.
func TestAttestedBothWays(t *testing.T) {
	server, client, stranger := envelopetest.NewKey(t), envelopetest.NewKey(t), envelopetest.NewKey(t)
	real := time.Now()
	until := real.Add(time.Hour)
	address := echo(t, &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{*newAttested(t, server, real, until)},
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: VerifyAttested(client.Public(), time.Now),
	})
	for _, c := range []struct {
		what   string
		expect envelope.SecretKey // of the server
		show   envelope.SecretKey // the client's own
		at     time.Time
		err    error
		fails  bool
	}{
		{"both right", server, client, real, nil, false},
		{"another server", stranger, client, real, ErrForeign, true},
		{"another client", server, stranger, real, nil, true},
		{"expired", server, client, until, ErrExpired, true},
	} {
		text, err := greet(address, &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true,
			Certificates:       []tls.Certificate{*newAttested(t, c.show, real, until)},
			VerifyConnection:   VerifyAttested(c.expect.Public(), func() time.Time { return c.at }),
		})
		if (err != nil) != c.fails || c.err != nil && !errors.Is(err, c.err) || !c.fails && text != "hello" {
			t.Errorf("%s: %q, %v", c.what, text, err)
		}
	}
}

func TestVerifyAttestedRefuses(t *testing.T) {
	key := envelopetest.NewKey(t)
	real := time.Now()
	until := real.Add(time.Hour)
	verify := func(c *x509.Certificate) error {
		return VerifyAttested(key.Public(), time.Now)(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}})
	}
	wantErr(t, "no extension", verify(newKeeper(t, key, real).Certificate()), ErrNoProof)
	good := newAttested(t, key, real, until)
	if err := verify(good.Leaf); err != nil {
		t.Errorf("good: %v", err)
	}
	// Another's attestation, copied out of its certificate.
	event, err := attestationIn(good.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	with := func(event []byte) *x509.Certificate {
		c, err := NewAttested(real, until, func([32]byte) ([]byte, error) { return event, nil })
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	wantErr(t, "copied", verify(with(event)), ErrMismatch)
	if err := verify(with([]byte("garbage"))); err == nil {
		t.Error("garbage proves a key")
	}
	if err := verify(with(bytes.Repeat([]byte{' '}, maxContent+1))); err == nil || !strings.Contains(err.Error(), "no attestation") {
		t.Errorf("too long: %v", err)
	}
	wantErr(t, "no certificate", VerifyAttested(key.Public(), time.Now)(tls.ConnectionState{}), errNoneGiven)
	failed := errors.New("offline")
	_, err = NewAttested(real, until, func([32]byte) ([]byte, error) { return nil, failed })
	wantErr(t, "no signer", err, failed)
}

// tool returns how to call a program of the system, "" if it is not there.
func tool(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

func writeTemp(t *testing.T, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// trusts reports whether Go, and the system's openssl where there is one, take
// leaf for host when told to trust the certificates in roots.
func trusts(t *testing.T, roots []byte, leaf *x509.Certificate, host string) bool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		t.Fatal("no certificate in PEM")
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host})
	if openssl := tool("openssl"); openssl != "" {
		out, other := exec.Command(openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host,
			"-CAfile", writeTemp(t, roots), writeTemp(t, encode(leaf))).CombinedOutput()
		if (err == nil) != (other == nil) {
			t.Errorf("%s: Go says %v, openssl %v: %s", host, err, other, out)
		}
	}
	return err == nil
}

// The attested certificate works as what to trust, for its names alone.
func TestAttestedCertificateIsTrusted(t *testing.T) {
	key := envelopetest.NewKey(t)
	real := time.Now()
	relays := []string{"wss://a.example", "wss://b.example"}
	long := name.Name{Key: key.Public(), Relays: relays}.Host()
	k := newKeeper(t, key, real, long)
	roots := attested(t, k, key, real).PEM()
	for host, want := range map[string]bool{
		name.Name{Key: key.Public()}.Host():                     true,
		name.Name{Key: key.Public(), Relays: relays[:1]}.Host(): true,
		long:                                    true,
		key.Public().NPub() + ".nostr":          true,
		"www." + key.Public().NPub() + ".nostr": false,
		name.Name{Key: envelopetest.NewKey(t).Public()}.Host(): false,
		"bank.example": false,
	} {
		if got := trusts(t, roots, k.Certificate(), host); got != want {
			t.Errorf("%s: trusted %v", host, got)
		}
	}
	// Neither is anything that it signs.
	k.mu.Lock()
	signer := k.pair
	k.mu.Unlock()
	c, err := issue(&x509.Certificate{NotBefore: real.Add(-time.Hour), NotAfter: real.Add(time.Hour), DNSNames: []string{"bank.example"}}, signer)
	if err == nil && trusts(t, roots, c.Leaf, "bank.example") {
		t.Error("the certificate vouches for others")
	}
}

// curl asks a server on loopback as if it were host, and returns what it says.
func curl(t *testing.T, roots []byte, host, address string) (string, error) {
	t.Helper()
	_, port, _ := strings.Cut(address, ":")
	out, err := exec.Command(tool("curl"), "-sS", "--http0.9", "--max-time", "60", "--noproxy", "*", "--cacert", writeTemp(t, roots),
		"--resolve", host+":"+port+":127.0.0.1", "https://"+host+":"+port+"/").CombinedOutput()
	return string(out), err
}

func TestCurl(t *testing.T) {
	if tool("curl") == "" {
		t.Log("no curl here: Go's verification has to do, see TestAttestedCertificateIsTrusted")
		return
	}
	key, other := envelopetest.NewKey(t), envelopetest.NewKey(t)
	real := time.Now()
	k := newKeeper(t, key, real)
	address := echoHTTP(t, k.ServerConfig())
	roots := attested(t, k, key, real).PEM()
	npub := key.Public().NPub() + ".nostr"
	for _, host := range []string{name.Name{Key: key.Public()}.Host(), npub} {
		if text, err := curl(t, roots, host, address); err != nil || text != "hello" {
			t.Errorf("%s: %q, %v", host, text, err)
		}
	}
	foreign := attested(t, newKeeper(t, other, real), other, real).PEM()
	if text, err := curl(t, foreign, npub, address); err == nil {
		t.Errorf("curl takes the certificate of another: %q", text)
	}
}
