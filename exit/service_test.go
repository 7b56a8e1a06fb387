package exit

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

func TestServices(t *testing.T) {
	tcp, _ := echoTCP(t, "127.0.0.1")
	path := filepath.Join(t.TempDir(), "service.sock")
	sock, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := sock.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			io.Copy(c, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { sock.Close() })
	var logged bytes.Buffer
	// No prefix is opened: services need none, not even on port 25.
	s := newServer(t, Config{
		Services: map[uint16]Target{
			25: {Network: "tcp", Address: tcp}, 81: {Network: "unix", Address: path},
			82: {Network: "tcp", Address: closedPort(t)}, 83: {Network: "unix", Address: path + ".missing"}, 84: {Network: "tcp", Address: "service.invalid:80"},
		},
		Log: slog.New(slog.NewTextHandler(&logged, nil)),
	}, "192.0.2.1/32")
	n := name.Name{Key: testKey(t)}
	for _, to := range []string{n.Host() + ":25", nwsName + ":25", n.NPub() + ".nostr:81", strings.ToUpper(n.NPub()) + ":81"} {
		peer, done := open(t, s, "tcp", to)
		echoed(t, peer)
		<-done
	}
	for range 2 {
		for _, p := range []string{"82", "83"} {
			err := rejection(t, s, "tcp", n.Host()+":"+p)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("service %s is down: %v", p, err)
			}
			if told := wire.AsError(err).Text; strings.Contains(told, "127.0.0.1") || strings.Contains(told, path) {
				t.Errorf("a stranger learns where the service is: %q", told)
			}
		}
	}
	if got := strings.Count(logged.String(), "a service does not answer"); got != 2 {
		t.Errorf("the operator is told %d times of two services down:\n%s", got, &logged)
	}
}

// secured returns the settings of a server with a certificate, and a client's
// that accepts it.
func secured(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	web := httptest.NewTLSServer(nil)
	web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	return &tls.Config{Certificates: web.TLS.Certificates}, &tls.Config{RootCAs: roots, ServerName: "example.com"}
}

func TestServiceOverTLS(t *testing.T) {
	addr, _ := echoTCP(t, "127.0.0.1")
	server, client := secured(t)
	s := newServer(t, Config{Services: map[uint16]Target{443: {Network: "tcp", Address: addr, TLS: true}, 80: {Network: "tcp", Address: addr}}, TLS: server})
	n := name.Name{Key: testKey(t)}
	peer, done := open(t, s, "tcp", n.Host()+":443")
	echoed(t, tls.Client(peer, client))
	<-done
	peer, done = open(t, s, "tcp", n.Host()+":80") // the other port is as it was
	echoed(t, peer)
	<-done

	// Who speaks no TLS gets nothing of the service.
	peer, done = open(t, s, "tcp", n.Host()+":443")
	if _, err := io.WriteString(peer, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(peer); bytes.Contains(answer, []byte("hello")) {
		t.Errorf("without TLS the answer is %q", answer)
	}
	<-done
}

// A service that breaks off must not look as if it had ended.
func TestServiceOverTLSBreaksOff(t *testing.T) {
	l := listenTCP(t, "127.0.0.1")
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		io.ReadFull(conn, make([]byte, 4))
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}()
	server, client := secured(t)
	s := newServer(t, Config{Services: map[uint16]Target{443: {Network: "tcp", Address: l.Addr().String(), TLS: true}}, TLS: server})
	peer, done := open(t, s, "tcp", nwsName+":443")
	conn := tls.Client(peer, client)
	if _, err := io.WriteString(conn, "stop"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err == nil {
		t.Errorf("read %q and an orderly end", answer)
	}
	<-done
}

func TestNameWithoutPortIsTheOnlyService(t *testing.T) {
	addr, _ := echoTCP(t, "127.0.0.1")
	one := newServer(t, Config{Services: map[uint16]Target{8080: {Network: "tcp", Address: addr}}})
	peer, done := open(t, one, "tcp", nwsName)
	echoed(t, peer)
	<-done
	two := newServer(t, Config{Services: map[uint16]Target{8080: {Network: "tcp", Address: addr}, 8081: {Network: "tcp", Address: addr}}})
	if err := rejection(t, two, "tcp", nwsName); reasonOf(err) != ReasonNoService {
		t.Errorf("with two services: %v", err)
	}
}

func TestParseTarget(t *testing.T) {
	for _, s := range []string{"127.0.0.1:80", "web.lan:8080", "[::1]:443", "unix:/run/x.sock", "unix:relative", "tls:127.0.0.1:80", "tls:unix:/run/x.sock", "http://web.lan:8080", "tls:http://127.0.0.1:80", "https://unix:/run/x.sock", "proxy:[::1]:25", "tls:proxy:unix:/x"} {
		if target, err := ParseTarget(s); err != nil || target.String() != s {
			t.Errorf("%q: %v, %v", s, target, err)
		}
	}
	for _, s := range []string{"", "80", ":80", "host", "host:", "host:0", "host:http", "host:65536", "unix:", "::1:80", "tls:", "tls:80", "tls:unix:", "tls:tls:a:1", "proxy:tls:a:1", "proxy:http://a:1", "ftp://a:1", "http://a", "http://a:1/path", "http://"} {
		if target, err := ParseTarget(s); err == nil {
			t.Errorf("%q is taken for %v", s, target)
		}
	}
	for _, cfg := range []Config{
		{Services: map[uint16]Target{0: {Network: "tcp", Address: "x:1"}}}, {Services: map[uint16]Target{1: {}}},
		{Services: map[uint16]Target{1: {Network: "tcp", Address: "x:1", TLS: true}}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%v is taken", cfg.Services)
		}
	}
}
