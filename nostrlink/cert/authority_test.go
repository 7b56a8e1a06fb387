package cert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// echoHTTP serves "hello" to every request.
func echoHTTP(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.Addr().String()
}

func newAuthority(t *testing.T, at time.Time) *Authority {
	t.Helper()
	a, err := OpenAuthority(filepath.Join(t.TempDir(), "authority.pem"), at)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthorityStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authority.pem")
	var wg sync.WaitGroup
	made := make([]*Authority, 8)
	for i := range made {
		wg.Go(func() {
			var err error
			if made[i], err = OpenAuthority(path, now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, a := range made {
		if a == nil || !a.Certificate().Equal(made[0].Certificate()) {
			t.Fatal("two authorities at once")
		}
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}
	if strings.Contains(string(made[0].PEM()), "PRIVATE") {
		t.Error("the private key is given out")
	}
	if _, err := OpenAuthority(path, now.Add(authorityLife)); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("after its end: %v", err)
	}
	key := envelopetest.NewKey(t)
	keeper := filepath.Join(t.TempDir(), "cert.pem")
	if _, err := OpenKeeper(keeper, key.Public(), nil, now); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(keeper, now); err == nil || !strings.Contains(err.Error(), "no authority") {
		t.Errorf("a service's certificate as authority: %v", err)
	}
}

// Even its own key cannot make the authority vouch for anything but .nostr.
func TestAuthorityIsConstrained(t *testing.T) {
	real := time.Now()
	a := newAuthority(t, real)
	forge := func(change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{
			NotBefore: real.Add(-time.Hour), NotAfter: real.Add(time.Hour), BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		change(c)
		pair, err := issue(c, a.pair)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	for what, c := range map[string]struct {
		leaf *x509.Certificate
		host string
		want bool
	}{
		"nostr":      {forge(func(c *x509.Certificate) { c.DNSNames = []string{"blog.nostr"} }), "blog.nostr", true},
		"deep":       {forge(func(c *x509.Certificate) { c.DNSNames = []string{"a.b.nostr"} }), "a.b.nostr", true},
		"bank":       {forge(func(c *x509.Certificate) { c.DNSNames = []string{"bank.example"} }), "bank.example", false},
		"beside":     {forge(func(c *x509.Certificate) { c.DNSNames = []string{"a.nostr", "bank.example"} }), "bank.example", false},
		"similar":    {forge(func(c *x509.Certificate) { c.DNSNames = []string{"xnostr"} }), "xnostr", false},
		"below":      {forge(func(c *x509.Certificate) { c.DNSNames = []string{"a.nostr.example"} }), "a.nostr.example", false},
		"an address": {forge(func(c *x509.Certificate) { c.DNSNames = []string{"a.nostr"}; c.IPAddresses = []net.IP{{1, 1, 1, 1}} }), "a.nostr", false},
		"IPv6": {forge(func(c *x509.Certificate) {
			c.DNSNames = []string{"a.nostr"}
			c.IPAddresses = []net.IP{net.IPv6loopback}
		}), "a.nostr", false},
		"a URI": {forge(func(c *x509.Certificate) {
			c.DNSNames, c.URIs = []string{"a.nostr"}, []*url.URL{{Scheme: "https", Host: "bank.example"}}
		}), "a.nostr", false},
	} {
		if got := trusts(t, a.PEM(), c.leaf, c.host); got != c.want {
			t.Errorf("%s: trusted %v", what, got)
		}
	}
	// Not for other purposes, and through no further authority.
	code := forge(func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"a.nostr"}, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	})
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate())
	if _, err := code.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}); err == nil {
		t.Error("signs code")
	}
	below, err := issue(&x509.Certificate{
		NotBefore: real.Add(-time.Hour), NotAfter: real.Add(time.Hour), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.pair)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := issue(&x509.Certificate{NotBefore: real.Add(-time.Hour), NotAfter: real.Add(time.Hour), DNSNames: []string{"a.nostr"}}, below)
	if err != nil {
		t.Fatal(err)
	}
	between := x509.NewCertPool()
	between.AddCert(below.Leaf)
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between}); err == nil {
		t.Error("makes further authorities")
	}
}

func TestLeaf(t *testing.T) {
	real := time.Now()
	a := newAuthority(t, real)
	key := envelopetest.NewKey(t)
	for _, host := range []string{"blog.nostr", "BLOG.nostr.", name.Name{Key: key.Public()}.Host(), key.Public().NPub() + ".nostr", "a.b.c.nostr"} {
		c, err := a.Leaf(host, real)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if !trusts(t, a.PEM(), c.Leaf, strings.ToLower(strings.TrimSuffix(host, "."))) {
			t.Errorf("%s: not trusted", host)
		}
	}
	for _, host := range []string{"", "nostr", ".nostr", "bank.example", "a..nostr", "*.nostr", "a b.nostr", "a\x00.nostr", "bücher.nostr",
		strings.Repeat("a", 64) + ".nostr", strings.Repeat("a.", 130) + "nostr", "127.0.0.1"} {
		if c, err := a.Leaf(host, real); err == nil {
			t.Errorf("%q: %q", host, c.Leaf.DNSNames)
		}
	}
	first, err := a.Leaf("blog.nostr", real)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.Leaf("blog.nostr", real.Add(24*time.Hour)); err != nil || again != first {
		t.Errorf("made again after a day: %v", err)
	}
	if again, err := a.Leaf("blog.nostr", real.Add(6*24*time.Hour)); err != nil || again == first {
		t.Errorf("not made again after six days: %v", err)
	}
	for i := range 2 * maxLeaves {
		if _, err := a.Leaf(fmt.Sprintf("h%d.nostr", i), real); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.leaves) != maxLeaves {
		t.Errorf("%d certificates kept", len(a.leaves))
	}
	last, err := a.Leaf("blog.nostr", a.Certificate().NotAfter.Add(-time.Hour))
	if err != nil || last.Leaf.NotAfter.After(a.Certificate().NotAfter) {
		t.Errorf("outlives its authority: %v", err)
	}
}

// bridgeTo listens on loopback for local programs and bridges them to a site.
func bridgeTo(t *testing.T, a *Authority, host string, dial DialFunc) (address string, errs <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 16)
	ctx := await.Context(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			local, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer local.Close()
				in, out, err := a.Bridge(ctx, local, host, dial)
				results <- err
				if err != nil {
					return
				}
				wg.Go(func() { io.Copy(out, in); out.CloseWrite() })
				io.Copy(in, out)
				in.Close()
				out.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String(), results
}

func dialSite(address string, config *tls.Config) DialFunc {
	return func(ctx context.Context, alpn []string) (*tls.Conn, error) {
		config := config.Clone()
		config.NextProtos = alpn
		d := tls.Dialer{Config: config}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return conn.(*tls.Conn), nil
	}
}

func TestBridge(t *testing.T) {
	key, other := envelopetest.NewKey(t), envelopetest.NewKey(t)
	real := time.Now()
	k := newKeeper(t, key, real)
	serving := k.ServerConfig()
	serving.NextProtos = []string{"http/1.1"}
	site := echoHTTP(t, serving)
	a := newAuthority(t, real)
	const host = "blog.nostr" // a petname: no certificate of the site's is for it
	mine := attested(t, k, key, real)
	local, errs := bridgeTo(t, a, host, dialSite(site, ClientConfig(host, time.Now, []*Attestation{mine})))

	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate())
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, local)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	resp, err := client.Get("https://" + host + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "hello" || resp.ProtoMajor != 1 || resp.TLS.NegotiatedProtocol != "http/1.1" {
		t.Errorf("%q over %s, %v", body, resp.Proto, err)
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
	if tool("curl") != "" {
		if text, err := curl(t, a.PEM(), host, local); err != nil || text != "hello" {
			t.Errorf("curl: %q, %v", text, err)
		}
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := client.Get("https://other.nostr/"); err == nil {
		t.Error("another host was answered")
	}
	if err := <-errs; err == nil || !strings.Contains(err.Error(), "asks for") {
		t.Errorf("another host: %v", err)
	}

	// A site that is not what its key attests to shows no page and no lock.
	foreign := attested(t, newKeeper(t, other, real), other, real)
	local, errs = bridgeTo(t, a, host, dialSite(site, ClientConfig(host, time.Now, []*Attestation{foreign})))
	transport.CloseIdleConnections()
	if _, err := client.Get("https://" + host + "/"); err == nil {
		t.Error("a site in between was shown")
	}
	wantErr(t, "in between", <-errs, ErrMismatch)
}

func TestBridgeGivesUp(t *testing.T) {
	a := newAuthority(t, time.Now())
	dialed := false
	dial := func(context.Context, []string) (*tls.Conn, error) {
		dialed = true
		return nil, errors.New("unreachable")
	}
	for what, program := range map[string]func(net.Conn){
		"speaks no TLS": func(c net.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") },
		"says nothing":  func(net.Conn) {},
	} {
		near, far := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			program(far)
			io.Copy(io.Discard, far)
		})
		ctx, cancel := context.WithCancel(await.Context(t))
		if what == "says nothing" {
			cancel()
		}
		in, out, err := a.Bridge(ctx, near, "blog.nostr", dial)
		cancel()
		near.Close()
		wg.Wait()
		if err == nil || in != nil || out != nil || dialed {
			t.Errorf("%s: %v, %v, %v, dialed %v", what, in, out, err, dialed)
		}
	}
}
