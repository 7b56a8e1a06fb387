package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// fakeCA is as much of an ACME server (RFC 8555) as one order takes. It checks the
// name by tls-alpn-01 (RFC 8737) and believes everything else.
type fakeCA struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	web    *httptest.Server
	host   string
	target atomic.Value // string // where the host's port 443 is
	proved atomic.Bool
	leaf   []byte // PEM
	issued atomic.Int32
}

func newFakeCA(t *testing.T, host string) *fakeCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &fakeCA{t: t, key: key, cert: cert, host: host}
	ca.web = httptest.NewServer(ca)
	t.Cleanup(ca.web.Close)
	return ca
}

// ServeHTTP implements http.Handler.
func (ca *fakeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	url := func(path string) string { return ca.web.URL + path }
	w.Header().Set("Replay-Nonce", "nonce")
	var signed struct{ Payload string }
	_ = json.NewDecoder(r.Body).Decode(&signed)
	payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	status, order := "pending", map[string]any{
		"identifiers":    []any{map[string]string{"type": "dns", "value": ca.host}},
		"authorizations": []string{url("/authz")}, "finalize": url("/finalize"),
	}
	if ca.proved.Load() {
		status = "valid"
	}
	challenge := map[string]string{"type": "tls-alpn-01", "url": url("/challenge"), "token": "token", "status": status}
	answer := func(code int, v any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	switch r.URL.Path {
	case "/dir":
		answer(200, map[string]string{"newNonce": url("/nonce"), "newAccount": url("/account"), "newOrder": url("/order")})
	case "/nonce":
	case "/account":
		w.Header().Set("Location", url("/account/1"))
		answer(201, map[string]string{"status": "valid"})
	case "/order", "/order/1":
		w.Header().Set("Location", url("/order/1"))
		order["status"] = map[string]string{"pending": "pending", "valid": "ready"}[status]
		answer(map[bool]int{true: 201, false: 200}[r.URL.Path == "/order"], order)
	case "/authz":
		answer(200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": ca.host}, "challenges": []any{challenge}})
	case "/challenge":
		if err := ca.check(); err != nil {
			ca.t.Error(err)
		}
		ca.proved.Store(true)
		answer(200, challenge)
	case "/finalize":
		if err := ca.issue(payload); err != nil {
			ca.t.Error(err)
		}
		w.Header().Set("Location", url("/order/1"))
		order["status"], order["certificate"] = "valid", url("/certificate")
		answer(200, order)
	case "/certificate":
		w.Write(ca.leaf)
	default:
		w.WriteHeader(404)
	}
}

// check asks the host for the certificate that proves the name.
func (ca *fakeCA) check() error {
	conn, err := tls.Dial("tcp", ca.target.Load().(string), &tls.Config{ServerName: ca.host, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	if s := conn.ConnectionState(); s.NegotiatedProtocol != "acme-tls/1" || s.PeerCertificates[0].VerifyHostname(ca.host) != nil {
		return fmt.Errorf("the host proves nothing: %q", s.NegotiatedProtocol)
	}
	return nil
}

func (ca *fakeCA) issue(payload []byte) error {
	var request struct{ CSR string }
	if err := json.Unmarshal(payload, &request); err != nil {
		return err
	}
	der, err := base64.RawURLEncoding.DecodeString(request.CSR)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: csr.DNSNames, NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, ca.cert, csr.PublicKey, ca.key)
	if err != nil {
		return err
	}
	ca.leaf = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
	ca.leaf = append(ca.leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})...)
	ca.issued.Add(1)
	return nil
}

// TestRelayGetsItsCertificate by ACME when the first client comes, for its own
// name only, and keeps it in the directory that a service has.
func TestRelayGetsItsCertificate(t *testing.T) {
	const host = "relay.example"
	ca, dir := newFakeCA(t, host), t.TempDir()
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	t.Setenv("STATE_DIRECTORY", dir)
	for range 2 { // the second time from the directory
		r := serveTestRelay(t, func(c *config.Relay) {
			c.ACMEHosts, c.ACMEDirectory = []string{host}, ca.web.URL+"/dir"
		})
		ca.target.Store(r.Addr().String())
		if r.URL() != "wss://"+host {
			t.Errorf("URL %q", r.URL())
		}
		opts := relay.Options{TLS: &tls.Config{RootCAs: pool, ServerName: host}}
		c, err := relay.Dial(t.Context(), "wss://"+r.Addr().String(), opts)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		opts.TLS.ServerName = "other.example"
		if _, err := relay.Dial(t.Context(), "wss://"+r.Addr().String(), opts); err == nil {
			t.Error("a certificate for another name")
		}
	}
	if n := ca.issued.Load(); n != 1 {
		t.Errorf("%d certificates", n)
	}
	if _, err := os.Stat(filepath.Join(dir, "acme", host)); err != nil {
		t.Errorf("the certificate is not kept: %v", err)
	}
}

func TestACMEDir(t *testing.T) {
	for _, c := range []struct{ configured, service, want string }{
		{"", "", "/var/lib/nws-vpn/acme"},
		{"", "/var/lib/nws-vpn-relay", "/var/lib/nws-vpn-relay/acme"},
		{"/srv/acme", "/var/lib/nws-vpn-relay", "/srv/acme"},
	} {
		if got := acmeDir(&config.Relay{ACMEDir: c.configured}, func(string) string { return c.service }); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
