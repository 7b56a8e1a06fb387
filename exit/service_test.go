package exit

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
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
			25: {"tcp", tcp}, 81: {"unix", path},
			82: {"tcp", closedPort(t)}, 83: {"unix", path + ".missing"}, 84: {"tcp", "service.invalid:80"},
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

func TestNameWithoutPortIsTheOnlyService(t *testing.T) {
	addr, _ := echoTCP(t, "127.0.0.1")
	one := newServer(t, Config{Services: map[uint16]Target{8080: {"tcp", addr}}})
	peer, done := open(t, one, "tcp", nwsName)
	echoed(t, peer)
	<-done
	two := newServer(t, Config{Services: map[uint16]Target{8080: {"tcp", addr}, 8081: {"tcp", addr}}})
	if err := rejection(t, two, "tcp", nwsName); reasonOf(err) != ReasonNoService {
		t.Errorf("with two services: %v", err)
	}
}

func TestParseTarget(t *testing.T) {
	for _, s := range []string{"127.0.0.1:80", "web.lan:8080", "[::1]:443", "unix:/run/x.sock", "unix:relative"} {
		if target, err := ParseTarget(s); err != nil || target.String() != s {
			t.Errorf("%q: %v, %v", s, target, err)
		}
	}
	for _, s := range []string{"", "80", ":80", "host", "host:", "host:0", "host:http", "host:65536", "unix:", "::1:80"} {
		if target, err := ParseTarget(s); err == nil {
			t.Errorf("%q is taken for %v", s, target)
		}
	}
	for _, cfg := range []Config{
		{Services: map[uint16]Target{0: {"tcp", "x:1"}}}, {Services: map[uint16]Target{1: {}}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%v is taken", cfg.Services)
		}
	}
}
