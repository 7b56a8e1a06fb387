package tlssite

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setting is a site, the dialer, and the relays' answer about the site.
type setting struct {
	*Dialer
	key    envelope.SecretKey
	keeper *cert.Keeper
	host   string // of the key
	roots  *x509.CertPool

	mu      sync.Mutex
	events  [][]byte
	fails   error
	asked   int
	dialled []string // network, address, length of the first bytes
	target  string   // where every dial leads
}

func newSetting(t *testing.T) *setting {
	t.Helper()
	key := envelopetest.NewKey(t)
	s := &setting{key: key, host: name.Name{Key: key.Public()}.Host()}
	var err error
	if s.keeper, err = cert.OpenKeeper(filepath.Join(t.TempDir(), "cert"), key.Public(), nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	authority, err := cert.OpenAuthority(filepath.Join(t.TempDir(), "authority"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(authority.Certificate())
	book, err := name.NewBook(map[string]string{"blog": key.Public().NPub()})
	if err != nil {
		t.Fatal(err)
	}
	s.attest(t)
	s.serve(t)
	s.Dialer = NewDialer(s.next(), Options{Authority: authority, Find: s.find, Names: book.Lookup})
	t.Cleanup(func() { s.Dialer.Close() })
	return s
}

// attest publishes the certificate in use.
func (s *setting) attest(t *testing.T) {
	t.Helper()
	event, _, err := cert.Append(nil, s.key, time.Now(), s.keeper.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	s.publish(event)
}

func (s *setting) publish(events ...[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = events
}

func (s *setting) find(_ context.Context, n name.Name) (events []*envelope.Event, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	for _, raw := range s.events {
		ev, err := envelope.ParseEvent(bytes.Clone(raw))
		if err != nil {
			return nil, err
		}
		events = append(events, &ev)
	}
	return events, s.fails
}

// serve runs the site: a web server.
func (s *setting) serve(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.target = l.Addr().String()
	web := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "hello %s, %d bytes, %v", r.Host, n, err)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		web.Serve(tls.NewListener(l, s.keeper.ServerConfig()))
	}()
	t.Cleanup(func() { web.Close(); <-done })
}

// fakeNext dials the site, whatever is asked for.
type fakeNext struct{ *setting }

func (s *setting) next() Next { return fakeNext{s} }

func (f fakeNext) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f.DialEarly(ctx, network, address, nil)
}

func (f fakeNext) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	f.mu.Lock()
	f.dialled = append(f.dialled, fmt.Sprintf("%s %s %d", network, address, len(first)))
	f.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.target)
	if err == nil && len(first) > 0 {
		_, err = conn.Write(first)
	}
	return conn, err
}

// get fetches a page as a program does: early, with the first bytes that it
// sends, or not.
func (s *setting) get(early bool, url string, body []byte) (string, error) {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		address := net.JoinHostPort(s.host, "443")
		if !early {
			return s.DialContext(ctx, network, address)
		}
		return &late{dial: func(first []byte) (net.Conn, error) {
			conn, err := s.DialEarly(ctx, network, address, first)
			clear(first) // it was only lent
			return conn, err
		}}, nil
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: s.roots}, DisableKeepAlives: true,
	}}
	resp, err := client.Post(url, "text/plain", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// late is a connection that is dialled with the first bytes.
type late struct {
	net.Conn
	dial func(first []byte) (net.Conn, error)
}

func (l *late) Write(p []byte) (n int, err error) {
	if l.Conn != nil {
		return l.Conn.Write(p)
	}
	l.Conn, err = l.dial(bytes.Clone(p))
	return len(p), err
}

func (l *late) Close() error {
	if l.Conn == nil {
		return nil
	}
	return l.Conn.Close()
}

func TestProgramsTrustTheSite(t *testing.T) {
	s := newSetting(t)
	body := bytes.Repeat([]byte("0123456789"), 100_000)
	for _, early := range []bool{false, true} {
		for _, host := range []string{s.host, s.key.Public().NPub() + ".nostr", "blog.nostr", "BLOG.nostr", "0123." + s.host} {
			got, err := s.get(early, "https://"+host+"/", body)
			if strings.HasPrefix(host, "0123.") { // no relay's name: not a name at all
				if err == nil {
					t.Errorf("early %v, %s: %q", early, host, got)
				}
				continue
			}
			if want := fmt.Sprintf("hello %s, %d bytes, <nil>", host, len(body)); err != nil || got != want {
				t.Errorf("early %v, %s: %q, %v", early, host, got, err)
			}
		}
	}
	if s.asked != 1 {
		t.Errorf("relays were asked %d times", s.asked)
	}
	if want := "tcp " + s.host + ":443 0"; slices.ContainsFunc(s.dialled, func(d string) bool { return d != want }) {
		t.Errorf("dialled %q", s.dialled)
	}
}

func TestAnotherSitesNameIsRefused(t *testing.T) {
	s := newSetting(t)
	other := envelopetest.NewKey(t)
	for _, host := range []string{other.Public().NPub() + ".nostr", "www.example.com", "away.nostr"} {
		if got, err := s.get(true, "https://"+host+"/", nil); err == nil {
			t.Errorf("as %s: %q", host, got)
		}
	}
}

// What is not attested to is the program's to judge, and passes as it is.
func TestSitesWithoutAttestationPass(t *testing.T) {
	for what, change := range map[string]func(s *setting){
		"nothing published": func(s *setting) { s.publish() },
		"no relay":          func(s *setting) { s.fails = errors.New("no relay answers") },
	} {
		s := newSetting(t)
		change(s)
		_, err := s.get(true, "https://"+s.host+"/", nil)
		if unknown := (*tls.CertificateVerificationError)(nil); !errors.As(err, &unknown) {
			t.Errorf("%s: %v, want what the program says of an unknown authority", what, err)
		}
		s.roots.AddCert(s.keeper.Certificate())
		if _, err := s.get(true, "https://"+s.host+"/", nil); err != nil {
			t.Errorf("%s: with the site's own certificate: %v", what, err)
		}
		if strings.HasSuffix(s.dialled[0], " 0") {
			t.Errorf("%s: the first bytes did not travel along: %q", what, s.dialled)
		}
	}
}

func TestBadAttestationsAreRefused(t *testing.T) {
	s := newSetting(t)
	stranger := newSetting(t)
	old := time.Now().Add(-time.Hour)
	expired, _, err := cert.AppendSPKI(nil, s.key, old, cert.SPKI(s.keeper.Certificate()), old.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		event []byte
		want  error
	}{
		"another key's": {stranger.events[0], cert.ErrForeign},
		"expired":       {expired, cert.ErrExpired},
		"forged":        {bytes.Replace(s.events[0], []byte("TLS certificate of"), []byte("TLS certificate by"), 1), envelope.ErrID},
	} {
		s := &setting{key: s.key, host: s.host, target: s.target, events: [][]byte{test.event}}
		d := NewDialer(s.next(), Options{Find: s.find})
		if _, err := d.DialEarly(t.Context(), "tcp", s.host+":443", []byte("x")); !errors.Is(err, test.want) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := d.DialContext(t.Context(), "tcp", s.host+":80"); err != nil {
			t.Errorf("%s: on another port: %v", what, err)
		}
		if len(s.dialled) != 1 {
			t.Errorf("%s: dialled %q", what, s.dialled)
		}
		d.Close()
	}
}

// A site with another key than it attests to is an impostor, or has a new one:
// the relays are asked once more.
func TestMismatch(t *testing.T) {
	s := newSetting(t)
	url := "https://" + s.host + "/"
	if _, err := s.get(true, url, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.keeper.Renew(s.keeper.RenewAt()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // at once: the relays have just been asked
		if got, err := s.get(true, url, nil); err == nil {
			t.Errorf("another key: %q", got)
		}
	}
	if s.asked != 1 {
		t.Errorf("relays were asked %d times", s.asked)
	}
	s.age()
	if got, err := s.get(true, url, nil); err == nil || s.asked != 2 {
		t.Errorf("another key, and nothing new at the relays: %q, asked %d times", got, s.asked)
	}
	s.attest(t)
	s.age()
	if _, err := s.get(true, url, nil); err != nil || s.asked != 3 {
		t.Errorf("the new key is published: %v, asked %d times", err, s.asked)
	}
	s.publish() // a relay forgets: what was verified counts still
	s.Dialer.known.sites[s.key.Public()].until = time.Time{}
	if _, err := s.get(true, url, nil); err != nil || s.asked != 4 {
		t.Errorf("nothing is published any more: %v, asked %d times", err, s.asked)
	}
}

// age makes what is known of the site a while old.
func (s *setting) age() {
	s.Dialer.known.mu.Lock()
	defer s.Dialer.known.mu.Unlock()
	a := s.Dialer.known.sites[s.key.Public()]
	a.at = a.at.Add(-2 * askAgain)
}

// A refusal that comes late is a reset, as it is without a bridge.
func TestLateRefusal(t *testing.T) {
	s := newSetting(t)
	program, here := newPipe()
	s.Dialer.next = refusing{here}
	conn, err := s.DialEarly(t.Context(), "tcp", s.host+":443", nil)
	if err != nil {
		t.Fatal(err)
	}
	program.Abort(syscall.ECONNREFUSED)
	err = tls.Client(conn, &tls.Config{RootCAs: s.roots, ServerName: s.host}).Handshake()
	if err == nil {
		t.Error("the handshake succeeds")
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after that comes %v", err)
	}
	conn.Close()
}

// refusing gives out one connection.
type refusing struct{ net.Conn }

func (r refusing) DialContext(context.Context, string, string) (net.Conn, error) {
	return r.Conn, nil
}

func (r refusing) DialEarly(context.Context, string, string, []byte) (net.Conn, error) {
	return r.Conn, nil
}

func TestWhatIsNoTLSPasses(t *testing.T) {
	s := newSetting(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			got, err := io.ReadAll(conn)
			fmt.Fprintf(conn, "got %q, %v", got, err)
			conn.Close()
		}
	}()
	s.target = l.Addr().String()
	for _, first := range []string{"", "GE"} {
		conn, err := s.DialEarly(t.Context(), "tcp", s.host+":443", []byte(first))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, strings.TrimPrefix("GET / HTTP/1.0\n\n", first)); err != nil {
			t.Fatal(err)
		}
		conn.(*end).CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != `got "GET / HTTP/1.0\n\n", <nil>` {
			t.Errorf("after %q: %q, %v", first, got, err)
		}
		conn.Close()
	}
}

func TestCloseEndsConnections(t *testing.T) {
	s := newSetting(t)
	conn, err := s.DialContext(t.Context(), "tcp", s.host+":443")
	if err != nil {
		t.Fatal(err)
	}
	client := tls.Client(conn, &tls.Config{RootCAs: s.roots, ServerName: s.host})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	waiting, err := s.DialContext(t.Context(), "tcp", s.host+":443") // for the program's first bytes
	if err != nil {
		t.Fatal(err)
	}
	s.Dialer.Close()
	if _, err := io.ReadAll(client); err == nil {
		t.Error("an orderly end")
	}
	io.ReadAll(waiting)
	if _, err := s.DialContext(t.Context(), "tcp", s.host+":443"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dialled after the end: %v", err)
	}
}

func TestSite(t *testing.T) {
	key := name.Name{Key: [32]byte{1}}.Host()
	for address, want := range map[string]bool{
		key + ":443": true, key + ".:443": true,
		key + ":80": false, key: false, "www.example.com:443": false, "1.2.3.4:443": false, "x.nostr:443": false, "": false,
	} {
		if _, got := site("tcp", address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
	if _, got := site("udp", key+":443"); got {
		t.Error("a site over UDP")
	}
}

func TestKnownSitesAreBounded(t *testing.T) {
	s := newSetting(t)
	s.publish()
	for i := range maxKnown + 50 {
		n := name.Name{Key: [32]byte{byte(i), byte(i >> 8)}}
		if _, err := s.Dialer.known.get(t.Context(), n, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.Dialer.known.sites); n > maxKnown {
		t.Errorf("%d sites are remembered", n)
	}
}
