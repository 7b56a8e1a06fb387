package exit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// knownRequest is a request of a client with a key.
type knownRequest struct {
	*fakeRequest
	key    [32]byte
	proven bool
}

func (r knownRequest) Client() ([32]byte, bool) { return r.key, r.proven }

// openAs opens a flow for a client.
func openAs(t *testing.T, s *Server, address string, key [32]byte, proven bool) (peer net.Conn) {
	t.Helper()
	r := newRequest(t, "tcp", address)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Handle(ctx, knownRequest{r, key, proven})
	}()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-r.accepted:
	case err := <-r.rejected:
		t.Fatal(err)
	}
	return r.peer
}

// web is a web server that says what it was asked.
func web(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/switch" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(conn, conn)
			conn.Close()
			return
		}
		fmt.Fprintf(w, "%s %s %s for=%s proto=%s client=%s", r.Method, r.Host, r.URL, r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"], append(r.Header[clientHeader], r.Header["Nws_client"]...))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func webServer(t *testing.T, cfg Config) *Server {
	s := newServer(t, cfg)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestWebService(t *testing.T) {
	server, clientTLS := secured(t)
	backend := web(t)
	s := webServer(t, Config{TLS: server, Services: map[uint16]Target{
		80: {Network: "tcp", Address: backend, HTTP: "http"}, 443: {Network: "tcp", Address: backend, HTTP: "http", TLS: true},
	}})
	alice := *rules(t, "allow "+aliceNPub+" *")[0].Client
	for _, tt := range []struct {
		port   string
		key    [32]byte
		proven bool
		want   string
	}{
		{"80", alice, true, "for=[" + addressOf(alice).String() + "] proto=[http] client=[" + aliceNPub + "]"},
		{"80", alice, false, "for=[" + addressOf(alice).String() + "] proto=[http] client=[]"},
		{"80", [32]byte{}, false, "for=[] proto=[http] client=[]"},
		{"443", alice, true, "for=[" + addressOf(alice).String() + "] proto=[https] client=[" + aliceNPub + "]"},
	} {
		peer := openAs(t, s, nwsName+":"+tt.port, tt.key, tt.proven)
		if tt.port == "443" {
			peer = tls.Client(peer, clientTLS)
		}
		answers := bufio.NewReader(peer)
		for i := range 3 { // on one connection
			fmt.Fprintf(peer, "GET /%d?x=y HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-For: 1.2.3.4\r\nNws-Client: "+bobNPub+"\r\nnws_Client: "+bobNPub+"\r\n\r\n", i)
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if want := fmt.Sprintf("GET site.example /%d?x=y ", i) + tt.want; err != nil || string(got) != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
		peer.Close()
	}
	// A websocket, or whatever else a connection becomes.
	peer := openAs(t, s, nwsName+":80", alice, true)
	fmt.Fprint(peer, "GET /switch HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	answers := bufio.NewReader(peer)
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	fmt.Fprint(peer, "to and fro")
	if got, err := answers.Peek(10); err != nil || string(got) != "to and fro" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What servers take for a client's address or name comes from the exit alone.
func TestAClientSaysNothingOfItselfToAWebServer(t *testing.T) {
	arrived := make(chan http.Header, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.Header }))
	t.Cleanup(backend.Close)
	s := webServer(t, Config{Services: map[uint16]Target{80: {Network: "tcp", Address: backend.Listener.Addr().String(), HTTP: "http"}}})
	claims := []string{
		"X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "CF-Pseudo-IPv4", "X-Client-IP", "Client-IP", "X-Cluster-Client-IP",
		"Forwarded", "Forwarded-For", "X-Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port",
		"X-Forwarded-User", "X-Forwarded-Client-Cert", "X-Original-Forwarded-For", "X-Remote-IP", "X-Remote-Addr", "X-Originating-IP",
		"Fastly-Client-IP", "Fly-Client-IP", "X-Appengine-User-IP", "X-Azure-ClientIP", "X-Azure-SocketIP", "X-Envoy-External-Address",
		"X-ProxyUser-IP", "Nws-Client", "x_real_ip", "X_Real-Ip", "x-real_ip", "nws_client", "x_forwarded_for", "True_Client_IP",
	}
	const lie = "203.0.113.66"
	for _, header := range append(claims, "X-Custom", "Via", "X_Custom") {
		peer := openAs(t, s, nwsName+":80", *rules(t, "allow "+aliceNPub+" *")[0].Client, true)
		fmt.Fprintf(peer, "GET / HTTP/1.1\r\nHost: x\r\n%s: %s\r\nConnection: close\r\n\r\n", header, lie)
		resp, err := http.ReadResponse(bufio.NewReader(peer), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		peer.Close()
		got := <-arrived
		passed := strings.Contains(fmt.Sprint(got), lie)
		if wanted := !slices.Contains(claims, header); passed != wanted {
			t.Errorf("%s: passed on is %v, want %v: %v", header, passed, wanted, got)
		}
		if fmt.Sprint(got[clientHeader]) != "["+aliceNPub+"]" {
			t.Errorf("%s: the server is told %q", header, got[clientHeader])
		}
	}
}

func TestWebServiceThatIsDown(t *testing.T) {
	var logged bytes.Buffer
	s := webServer(t, Config{
		Services: map[uint16]Target{80: {Network: "tcp", Address: closedPort(t), HTTP: "http"}},
		Log:      slog.New(slog.NewTextHandler(&logged, nil)),
	})
	r := newRequest(t, "tcp", nwsName+":80")
	done := handle(t, s, r)
	<-r.accepted
	fmt.Fprint(r.peer, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	got, _ := io.ReadAll(r.peer)
	if !strings.Contains(string(got), "502") || strings.Contains(string(got), "127.0.0.1") {
		t.Errorf("a client is told %q", got)
	}
	<-done
	if !strings.Contains(logged.String(), "a service does not answer") {
		t.Error("the operator is not told")
	}
}

// The end of the session ends a flow whose client says nothing.
func TestWebServiceEndsWithTheSession(t *testing.T) {
	s := webServer(t, Config{Services: map[uint16]Target{80: {Network: "tcp", Address: web(t), HTTP: "http"}}})
	r := newRequest(t, "tcp", nwsName+":80")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Handle(ctx, r); close(done) }()
	<-r.accepted
	cancel()
	<-done
}

func TestProxyHeader(t *testing.T) {
	l := listenTCP(t, "127.0.0.1")
	s := newServer(t, Config{Services: map[uint16]Target{25: {Network: "tcp", Address: l.Addr().String(), Proxy: true}}})
	alice := *rules(t, "allow "+aliceNPub+" *")[0].Client
	for _, c := range []client{{alice, true}, {alice, false}, {}} {
		peer := openAs(t, s, nwsName+":25", c.key, c.proven)
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(peer, "EHLO\r\n")
		head := make([]byte, 16)
		if _, err := io.ReadFull(conn, head); err != nil || string(head[:12]) != proxySignature {
			t.Fatalf("%q, %v", head, err)
		}
		rest := make([]byte, binary.BigEndian.Uint16(head[14:]))
		if _, err := io.ReadFull(conn, rest); err != nil {
			t.Fatal(err)
		}
		from := addressOf(c.key).As16()
		switch {
		case c == client{}:
			if head[12] != 0x20 || len(rest) != 0 {
				t.Errorf("of an unknown client: %x %x", head, rest)
			}
		case head[12] != 0x21 || head[13] != 0x21 || !bytes.Equal(rest[:16], from[:]) || binary.BigEndian.Uint16(rest[32:]) == 0:
			t.Errorf("%x %x", head, rest)
		case c.proven != strings.HasSuffix(string(rest), "\xe0\x00\x3f"+aliceNPub) || !c.proven && len(rest) != 36:
			t.Errorf("proven %v: %q", c.proven, rest)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "EHLO\r\n" {
			t.Errorf("then %q, %v", line, err)
		}
		conn.Close()
	}
	if a := addressOf(alice); !clientPrefix.Contains(a) || a != addressOf(alice) || a == addressOf([32]byte{}) {
		t.Errorf("the address of a client is %v", a)
	}
}
