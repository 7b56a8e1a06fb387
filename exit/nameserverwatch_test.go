package exit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// logBook is a log of what is at least info. It may be written concurrently.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// take returns what was logged since the last time, by lines.
func (b *logBook) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return strings.Split(strings.TrimSuffix(b.text.String(), "\n"), "\n")
}

// noTLS answers every connection with something else.
func noTLS(t *testing.T) netip.AddrPort {
	t.Helper()
	l := listenTCP(t, "127.0.0.1")
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("220 mail.example ready\r\n"))
			c.Read(make([]byte, 1))
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wait.Wait() })
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestNameserversThatFailAreNamed(t *testing.T) {
	dead := closedPort(t)
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, tt := range []struct{ server, reason string }{
		{"tls://dns.example@" + dead, "refused"},
		{"https://dns.example@" + dead + "/dns-query", "refused"},
		{"tls://dns.example@" + noTLS(t).String(), "tls:"},
		{mute.LocalAddr().String(), "timeout"},
	} {
		n, err := ParseNameserver(tt.server)
		if err != nil {
			t.Fatal(err)
		}
		var log logBook
		s := newServer(t, Config{Nameservers: []Nameserver{n}, Log: log.logger()})
		s.resolver.try = 5 * time.Second
		if strings.HasPrefix(tt.reason, "timeout") {
			s.resolver.try = time.Millisecond
		}
		for range 3 {
			_, err := ask(t, s.resolver, "wanted.example", dnsmessage.TypeA)
			if err == nil || !strings.Contains(err.Error(), tt.server) || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("%s: %v", tt.server, err)
			}
		}
		// A name that cannot be looked up is explained to the operator alone.
		x := s.Explain(t.Context(), nil, "tcp", "wanted.example:443")
		var r *Refusal
		if !errors.As(x.Refused, &r) || r.Cause() == nil || !strings.Contains(r.Cause().Error(), tt.server) || strings.Contains(r.Error(), "127.0.0.1") {
			t.Errorf("%s: explained by %v", tt.server, x.Refused)
		}
		lines := log.take()
		if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "server="+tt.server+" ") || !strings.Contains(lines[0], tt.reason) || strings.Contains(lines[0], "wanted") {
			t.Errorf("%s: logged %q", tt.server, lines)
		}
		if st := s.Nameservers(); len(st) != 1 || st[0].Server != tt.server || !st[0].Failing || st[0].Failed < 9 || st[0].Since.IsZero() || !strings.Contains(st[0].Reason, tt.reason) {
			t.Errorf("%s: %+v", tt.server, st)
		}
		s.Close()
	}
}

func TestANameserverThatAnswersAgainIsTold(t *testing.T) {
	dns := newDNS(t, zone{"lost.example": {{drop: true}}, "a.example": {{addrs: []string{"192.0.2.1"}}}})
	var log logBook
	s := newServer(t, Config{Nameservers: []Nameserver{{Addr: dns.addr}}, Log: log.logger()})
	s.resolver.try = time.Millisecond
	if _, err := ask(t, s.resolver, "lost.example", dnsmessage.TypeA); err == nil {
		t.Fatal("an answer")
	}
	s.resolver.try = time.Minute
	asked(t, s.resolver, "a.example")
	lines := log.take()
	if len(lines) != 2 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[1], "level=INFO") || !strings.Contains(lines[1], dns.addr.String()) {
		t.Errorf("logged %q", lines)
	}
	if st := s.Nameservers(); len(st) != 1 || st[0].Failing || st[0].Failed < 3 || st[0].Reason != "" {
		t.Errorf("%+v", st)
	}
}

// Who asks and goes away says nothing of the server, and the error says more than
// that, if there is more.
func TestTriesThatAreCutShort(t *testing.T) {
	arrived := make(chan struct{})
	dns := newDNS(t, zone{"a.example": {{drop: true, arrived: arrived}}})
	var log logBook
	r := newResolver(dns.addr)
	r.watch.log = log.logger()
	r.try = time.Hour
	for range failsInARow {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			q, _ := newQuery("a.example", dnsmessage.TypeA)
			if _, err := r.exchange(ctx, q); err == nil {
				t.Error("an answer")
			}
		}()
		<-arrived
		cancel()
		<-done
	}
	if st := r.watch.status(dns.addr.String()); st.Failed != 0 {
		t.Errorf("%+v", st)
	}

	dead := netip.MustParseAddrPort(closedPort(t))
	r = &resolver{try: time.Hour}
	r.servers = fixedServers([]upstream{newUpstream(Nameserver{Protocol: "tls", Host: "dns.example", Addr: dead}, nil), plainUpstream{dns.addr}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	q, err := newQuery("a.example", dnsmessage.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.exchange(ctx, q); err == nil || !strings.Contains(err.Error(), dead.String()) {
		t.Errorf("the error is %v, want that of the try which was not cut short", err)
	}
}

func TestReasonsInWords(t *testing.T) {
	broken := errors.New("dial tcp: broken")
	for want, err := range map[string]error{
		"dial tcp: broken":  &url.Error{Op: "Post", URL: "https://dns.example/dns-query", Err: broken},
		"no answer in time": &url.Error{Op: "Post", URL: "https://dns.example/dns-query", Err: context.DeadlineExceeded},
		"EOF":               io.EOF,
	} {
		if got := inWords(err).Error(); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestWarningsAboutNameserversAreFew(t *testing.T) {
	var log logBook
	w := nameserverWatch{log: log.logger()}
	now := time.Now()
	fail := func() {
		for range failsInARow {
			w.failed("192.0.2.1:53", errors.New("no answer"), now)
		}
	}
	for range 100 {
		fail()
		w.answered("192.0.2.1:53")
	}
	if lines := log.take(); len(lines) != 2 {
		t.Errorf("%d lines at once", len(lines))
	}
	now = now.Add(2 * tellEvery)
	fail()
	if lines := log.take(); len(lines) != 1 || !strings.Contains(lines[0], "WARN") {
		t.Errorf("later: %q", lines)
	}
	for i := range 10 * maxWatched {
		w.failed(fmt.Sprint(i), errors.New("no answer"), now)
	}
	if len(w.servers) > maxWatched {
		t.Errorf("%d servers are known", len(w.servers))
	}
}
