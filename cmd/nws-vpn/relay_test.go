package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

var quiet = slog.New(slog.DiscardHandler)

// serveTestRelay runs a relay on loopback until the test ends.
func serveTestRelay(t *testing.T, change func(c *config.Relay)) *relayServer {
	t.Helper()
	c := config.Default().Relay
	c.Listen = "127.0.0.1:0"
	change(&c)
	r, err := openRelay(&c, nil, nil, io.Discard, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := r.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return r
}

// TestRelayTellsItsFigures over a UNIX socket that a relay which was killed has
// left behind.
func TestRelayTellsItsFigures(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "m")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Skip("no UNIX sockets:", err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	r := serveTestRelay(t, func(c *config.Relay) { c.Metrics = "unix:" + socket })
	// The group may connect, which takes the right to write: it is whose user
	// collects figures.
	if info, err := os.Stat(socket); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if _, err := listenMetrics("unix:" + socket); err == nil {
		t.Error("the socket of a running relay was taken away")
	}
	c, err := relay.Dial(t.Context(), r.URL(), relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://relay/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	for _, want := range []string{"\nnws_relay_connections 1\n", "\nnws_build_info{version=", "\nprocess_start_time_seconds 1"} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%v: no %q in\n%s", err, want, text)
		}
	}
}

func TestFiguresStayOnTheMachine(t *testing.T) {
	for _, place := range []string{"0.0.0.0:9464", ":9464", "192.0.2.1:9464", "relay.example:9464", "unix:"} {
		if l, err := listenMetrics(place); err == nil {
			l.Close()
			t.Errorf("figures at %q", place)
		}
	}
}

// selfSigned writes a certificate and its key, and returns a pool with it.
func selfSigned(t *testing.T, cert, key string, serial int64) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "relay"}, DNSNames: []string{"relay.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

func TestRelayWithCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	pool := selfSigned(t, cert, key, 1)
	r := serveTestRelay(t, func(c *config.Relay) { c.TLSCert, c.TLSKey = cert, key })
	if !strings.HasPrefix(r.URL(), "wss://127.0.0.1:") {
		t.Errorf("URL %q", r.URL())
	}
	c, err := relay.Dial(t.Context(), r.URL(), relay.Options{TLS: &tls.Config{RootCAs: pool}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Subscribe(t.Context(), "s", []relay.Filter{{Kinds: []int{1}}}, func([]byte) {})
	if err != nil {
		t.Error(err)
	}
}

// TestCertificateFilesChange: a new certificate is used soon, a broken one is not.
func TestCertificateFilesChange(t *testing.T) {
	dir := t.TempDir()
	f := &certificateFiles{cert: filepath.Join(dir, "cert"), key: filepath.Join(dir, "key"), log: quiet}
	now := time.Now()
	if _, err := f.get(now); err == nil {
		t.Error("a certificate without files")
	}
	serial := func(after time.Duration) int64 {
		t.Helper()
		c, err := f.get(now.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.Int64()
	}
	write := func(n int64) {
		selfSigned(t, f.cert, f.key, n)
		os.Chtimes(f.cert, now, now.Add(time.Duration(n)*time.Minute)) // whatever the file system's clock resolves
	}
	write(1)
	if n := serial(time.Minute); n != 1 {
		t.Errorf("certificate %d", n)
	}
	write(2)
	if n := serial(time.Minute + recheck/2); n != 1 {
		t.Errorf("certificate %d: the files are read for every client", n)
	}
	if n := serial(2 * time.Minute); n != 2 {
		t.Errorf("certificate %d after the files have changed", n)
	}
	if err := os.WriteFile(f.cert, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := serial(3 * time.Minute); n != 2 {
		t.Errorf("certificate %d", n)
	}
}

// TestOpenTLSKey is used, and the log says what to do.
func TestOpenTLSKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean nothing here")
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	selfSigned(t, cert, key, 1)
	for mode, warns := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: false, 0o644: true, 0o660: true} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		f := &certificateFiles{cert: cert, key: key, log: slog.New(slog.NewTextHandler(&log, nil))}
		if _, err := f.get(time.Now()); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if got := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "chmod 600"); got != warns {
			t.Errorf("mode %04o: the log says %q", mode, log.String())
		}
	}
}

// TestEmbeddedRelay is reached by a URL that is not where it listens.
func TestEmbeddedRelay(t *testing.T) {
	key := envelopetest.NewKey(t)
	c := config.Default().Relay
	if _, err := embedRelay(&c, "0.0.0.0:0", key.Public(), nil, io.Discard, quiet); err == nil || !strings.Contains(err.Error(), "set url") {
		t.Errorf("nobody knows how to reach it: %v", err)
	}
	c.URL = "ws://relay.example:7777"
	c.Members = []string{key.Public().NPub()}
	var out bytes.Buffer
	e, err := embedRelay(&c, "0.0.0.0:0", key.Public(), nil, &out, quiet)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := relay.Dial(t.Context(), e.URL, relay.Options{
		DialContext: e.DialContext,
		Auth: func(_ context.Context, url, challenge string) ([]byte, [32]byte, error) {
			return envelope.Sign(nil, key, envelope.Template{
				Kind: 22242, CreatedAt: time.Now(), Tags: [][]string{{"relay", url}, {"challenge", challenge}},
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Subscribe(t.Context(), "s", []relay.Filter{{}}, func([]byte) {}); err != nil {
		t.Error(err)
	}
	conn.Close()
	e.Close()
	if !strings.HasPrefix(out.String(), "relay listening ws://") {
		t.Errorf("it said %q", out.String())
	}
}

func TestRelayRefusesWhatMakesNoSense(t *testing.T) {
	damaged := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(damaged, bytes.Repeat([]byte("text"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, change := range map[string]func(c *config.Relay){
		"go together":     func(c *config.Relay) { c.TLSCert = "x" },
		"not both":        func(c *config.Relay) { c.TLSCert, c.TLSKey, c.ACMEHosts = "x", "y", []string{"z.example"} },
		"want an npub":    func(c *config.Relay) { c.Members = []string{"nobody"} },
		"no such file":    func(c *config.Relay) { c.TLSCert, c.TLSKey = "/nonexistent/x", "/nonexistent/y" },
		"figures are for": func(c *config.Relay) { c.Metrics = "0.0.0.0:1" },
		"/nonexistent/relay.db: no such file or directory: name a file": func(c *config.Relay) { c.Database = "/nonexistent/relay.db" },
		"is no file of a relay, or is damaged: name another one":        func(c *config.Relay) { c.Database = damaged },
		"want host:port, such as 127.0.0.1:7777, not":                   func(c *config.Relay) { c.Listen = "7777" },
		"something listens there already":                               func(c *config.Relay) { c.Listen = taken.Addr().String() },
	} {
		c := config.Default().Relay
		c.Listen = "127.0.0.1:0"
		change(&c)
		r, err := openRelay(&c, nil, nil, io.Discard, quiet)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		if err != nil && strings.Contains(err.Error(), "relayd") {
			t.Errorf("an internal name: %v", err)
		}
		if r != nil {
			r.Close()
		}
	}
}

// TestExplained: what nobody gets who is root.
func TestExplained(t *testing.T) {
	bind := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", fs.ErrPermission)}
	if err := explainListen(bind); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("a low port: %v", err)
	}
	bind.Err = os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	if err := explainListen(bind); !strings.Contains(err.Error(), "an address that this machine has") {
		t.Errorf("a foreign address: %v", err)
	}
	denied := &fs.PathError{Op: "open", Path: "/db", Err: fs.ErrPermission}
	t.Setenv("STATE_DIRECTORY", "/var/lib/nws-vpn-relay")
	if err := explainDatabase(denied); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "writes to /var/lib/nws-vpn-relay and nowhere else") {
		t.Errorf("a foreign file: %v", err)
	}
}

func TestRelayFlagsAreChecked(t *testing.T) {
	for args, want := range map[string][2]string{
		"--url http://x": {"--url: ", "want a relay's URL"},
		"--listen 7777":  {"--listen: ", "want host:port, such as 127.0.0.1:7777"},
	} {
		cmd := root()
		cmd.SetArgs(append([]string{"relay"}, strings.Fields(args)...))
		if err := cmd.Execute(); err == nil || !strings.HasPrefix(err.Error(), want[0]) || !strings.Contains(err.Error(), want[1]) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
