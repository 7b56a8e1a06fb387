package direct

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/internal/await"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSecret() (s Secret) {
	rand.Read(s[:])
	return s
}

// serve runs a Listener on loopback.
func serve(t *testing.T) (*Listener, string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := tcp.Addr().String()
	l := NewListener(tcp, address)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(ctx) })
	t.Cleanup(func() { cancel(); serving.Wait() })
	return l, address
}

// expect has the listener take connections of a session.
func expect(t *testing.T, l *Listener, s Secret, end End) (<-chan *Conn, func()) {
	t.Helper()
	conns := make(chan *Conn, 8)
	stop, err := l.Expect(s, end, func(c *Conn) { conns <- c })
	if err != nil {
		t.Fatal(err)
	}
	return conns, stop
}

func newDialer() *Dialer { return NewDialer(new(net.Dialer).DialContext) }

// TestPackets: whichever end listens, packets of every size pass both ways.
func TestPackets(t *testing.T) {
	for _, listening := range []End{Entry, Exit} {
		ctx, s := await.Context(t), newSecret()
		l, address := serve(t)
		conns, stop := expect(t, l, s, listening)
		defer stop()
		d := newDialer()
		near, err := d.Dial(ctx, address, s, 1-listening)
		if err != nil {
			t.Fatal(err)
		}
		far := <-conns
		for from, to := range map[*Conn]*Conn{near: far, far: near} {
			sizes := []int{1, 1024, packetSize, maxFrame}
			got := make(chan []byte, len(sizes))
			var receiving sync.WaitGroup
			receiving.Go(func() { to.Receive(func(p []byte) { got <- bytes.Clone(p) }) })
			for i, n := range sizes {
				packet := bytes.Repeat([]byte{byte(i + 1)}, n)
				if err := from.Send(packet); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(<-got, packet) {
					t.Errorf("a packet of %d bytes came as another", n)
				}
			}
			if err := from.Send(make([]byte, maxFrame+1)); err == nil {
				t.Error("a packet is sent that is too large")
			}
			defer receiving.Wait()
		}
		near.Close()
		far.Close()
		if s := l.Stats(); s != (ListenerStats{Taken: 1}) {
			t.Errorf("the listener counts %+v", s)
		}
		if s := d.Stats(); s != (DialerStats{Made: 1}) {
			t.Errorf("the dialer counts %+v", s)
		}
	}
}

// TestStrangers: whoever is not the session's other end is refused and counted,
// and is shown no certificate unless it knows the session's name.
func TestStrangers(t *testing.T) {
	ctx, s := await.Context(t), newSecret()
	l, address := serve(t)
	conns, stop := expect(t, l, s, Entry)
	defer stop()
	mine, err := newBadge(s, Entry)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newBadge(newSecret(), Exit)
	if err != nil {
		t.Fatal(err)
	}
	over, stopOver := expect(t, l, newSecret(), Entry)
	stopOver()
	_ = over
	forged := other.config()
	forged.ServerName, forged.VerifyConnection = mine.name, nil
	nobody := &tls.Config{ServerName: mine.name, InsecureSkipVerify: true}
	reflected := mine.config() // with the listener's own key
	reflected.VerifyConnection = nil
	old := forged.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, test := range []struct {
		name  string
		tls   *tls.Config
		shown bool // a certificate
	}{
		{"no name", &tls.Config{InsecureSkipVerify: true}, false},
		{"a name", &tls.Config{ServerName: "www.example.com", InsecureSkipVerify: true}, false},
		{"another session", other.config(), false},
		{"TLS 1.2", old, false},
		{"the name alone", nobody, true},
		{"the name and another key", forged, true},
		{"the listener's own key", reflected, true},
	} {
		before := l.Stats()
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, test.tls)
		err = c.HandshakeContext(ctx)
		if err == nil { // the client does not know yet
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("%s: taken", test.name)
		}
		if shown := len(c.ConnectionState().PeerCertificates) > 0; shown != test.shown {
			t.Errorf("%s: certificate shown: %v", test.name, shown)
		}
		raw.Close()
		await.That(t, test.name+" is counted", func() bool { return l.Stats().Refused == before.Refused+1 })
	}
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello", "\x16"} {
		before := l.Stats()
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(raw, text)
		raw.(*net.TCPConn).CloseWrite()
		await.That(t, "garbage is refused", func() bool { return l.Stats().Refused == before.Refused+1 })
		raw.Close()
	}
	if len(conns) > 0 {
		t.Error("a stranger was taken")
	}
}

// TestWrongListener: a dialer refuses who does not have the session's key.
func TestWrongListener(t *testing.T) {
	ctx, s := await.Context(t), newSecret()
	right, err := newBadge(s, Entry)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]Secret{"another session's end": newSecret(), "nobody": {}} {
		l, address := serve(t)
		d := newDialer()
		if secret != (Secret{}) {
			wrong, err := newBadge(secret, Entry)
			if err != nil {
				t.Fatal(err)
			}
			l.expected[right.name] = &expectation{wrong, func(c *Conn) { c.Close() }}
		}
		if _, err := d.Dial(ctx, address, s, Exit); err == nil || secret != (Secret{}) && !errors.Is(err, ErrStranger) {
			t.Errorf("%s: %v", name, err)
		}
		if n := d.Stats().Failed; n != 1 {
			t.Errorf("%s: %d failures counted", name, n)
		}
	}
}

// TestEnded: a session that is over is not connected to any more.
func TestEnded(t *testing.T) {
	ctx, s := await.Context(t), newSecret()
	l, address := serve(t)
	_, stop := expect(t, l, s, Entry)
	stop()
	if _, err := newDialer().Dial(ctx, address, s, Exit); err == nil {
		t.Error("connected")
	}
	if _, err := l.Expect(Secret{}, Entry, nil); err == nil {
		t.Error("a session without a secret is expected")
	}
}

// TestBounds: one address cannot have all the room, and the dialer not be made
// to dial without end.
func TestBounds(t *testing.T) {
	ctx, s := await.Context(t), newSecret()
	l, address := serve(t)
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for range strangersEach + 1 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	await.That(t, "one too many is dropped", func() bool { return l.Stats().Dropped == 1 })
	await.That(t, "those that say nothing are refused", func() bool { return l.Stats().Refused == strangersEach })
	await.That(t, "they leave nothing behind", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.each) == 0 && len(l.strangers) == 0
	})

	now, dials := time.Now(), 0
	d := NewDialer(func(context.Context, string, string) (net.Conn, error) {
		dials++
		return nil, errors.New("refused")
	})
	d.now, d.filled = func() time.Time { return now }, now
	for range 100 {
		if _, err := d.Dial(ctx, "203.0.113.7:443", s, Exit); err == nil {
			t.Fatal("connected")
		}
	}
	if dials != dialBurst || d.Stats().Limited != 100-dialBurst {
		t.Errorf("%d attempts at once, %+v", dials, d.Stats())
	}
	now = now.Add(time.Second)
	for range 100 {
		d.Dial(ctx, "203.0.113.7:443", s, Exit)
	}
	if dials != dialBurst+dialsPerSec {
		t.Errorf("%d attempts a second later", dials-dialBurst)
	}
}

// TestPlain: what is no TLS goes to who shares the port, from its first byte.
func TestPlain(t *testing.T) {
	l, address := serve(t)
	plain := l.Plain()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "4b1da218")
	c.(*net.TCPConn).CloseWrite()
	got, err := plain.Accept()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(got)
	if string(text) != "4b1da218" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	got.Close()
	plain.Close()
	if _, err := plain.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept on a closed listener: %v", err)
	}
}

// TestSecretsStaySecret when they are printed.
func TestSecretsStaySecret(t *testing.T) {
	s := newSecret()
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(format, s); strings.Contains(text, fmt.Sprintf("%x", s[:4])) {
			t.Errorf("%s prints %s", format, text)
		}
	}
	a, _ := newBadge(s, Entry)
	b, _ := newBadge(s, Exit)
	if a.name != b.name || bytes.Contains([]byte(a.name), s[:]) || bytes.Equal(a.peer, b.peer) {
		t.Error("the two ends do not fit")
	}
}

// FuzzFrames holds that reading ends, gives no packet of no length, and nothing
// that was not sent.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 1, 2, 3})
	f.Add([]byte{255, 255, 1})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := 0
		err := readFrames(bytes.NewReader(b), func(p []byte) {
			if len(p) == 0 {
				t.Fatal("an empty packet")
			}
			sum += header + len(p)
		})
		if err == nil || sum > len(b) {
			t.Fatalf("%d bytes of %d, %v", sum, len(b), err)
		}
	})
}
