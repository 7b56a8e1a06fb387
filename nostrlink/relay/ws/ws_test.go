package ws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/internal/nonblock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server that hands each connection to handle and closes it.
func serve(t *testing.T, secure bool, handle func(*Conn)) (url string, roots *tls.Config) {
	t.Helper()
	var handlers sync.WaitGroup
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1)
		defer handlers.Done()
		c, err := Accept(w, r, time.Minute)
		if err != nil {
			return
		}
		defer c.CloseNow()
		handle(c)
	}))
	if secure {
		s.StartTLS()
		pool := x509.NewCertPool()
		pool.AddCert(s.Certificate())
		roots = &tls.Config{RootCAs: pool}
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.Close()
		handlers.Wait()
	})
	return strings.Replace(s.URL, "http", "ws", 1), roots
}

func open(t *testing.T, url string, roots *tls.Config) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), url, DialOptions{TLS: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseNow)
	return c
}

const limit = 1 << 20

// owner counts its releases.
type owner struct{ released atomic.Int32 }

func (o *owner) Release() { o.released.Add(1) }

// TestMessages sends messages of all sizes around the edges of the frame format
// and of the batches, in parts, both ways, and compares what arrives.
func TestMessages(t *testing.T) {
	sizes := []int{0, 1, 125, 126, 127, 511, 512, 513, 1535, 4096, 65535, 65536, 70000, 300000}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			url, roots := serve(t, secure, func(c *Conn) {
				var buf []byte
				for c.Next() == nil {
					var err error
					if buf, err = c.ReadMessage(buf, limit, time.Minute); err != nil {
						return
					}
					// Back in three parts, as a relay does.
					msg := bytes.Clone(buf)
					a, b := len(msg)/3, len(msg)-len(msg)/7
					if err := c.Send(context.Background(), Message{Head: msg[:a], Body: msg[a:b], Tail: msg[b:]}, limit); err != nil {
						return
					}
				}
			})
			c := open(t, url, roots)
			var sent [][]byte
			for round := range 3 {
				for i, size := range sizes {
					msg := make([]byte, size)
					for j := range msg {
						msg[j] = byte(round*7 + i + j + j>>8)
					}
					sent = append(sent, msg)
				}
			}
			o := new(owner)
			go func() {
				for _, msg := range sent {
					a := rand.IntN(len(msg) + 1)
					b := a + rand.IntN(len(msg)-a+1)
					m := bytes.Clone(msg) // it is overwritten
					if err := c.Send(context.Background(), Message{Head: m[:a], Body: m[a:b], Tail: m[b:], Owner: o}, 4*limit); err != nil {
						t.Error(err)
					}
				}
			}()
			var buf []byte
			for n, want := range sent {
				if err := c.Next(); err != nil {
					t.Fatal(err)
				}
				var err error
				if buf, err = c.ReadMessage(buf, limit, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(buf, want) {
					t.Fatalf("message %d of %d bytes came back as %d bytes, or changed", n, len(want), len(buf))
				}
			}
			c.CloseNow()
			if n := o.released.Load(); int(n) != len(sent) {
				t.Errorf("%d messages were released %d times", len(sent), n)
			}
		})
	}
}

func TestLimit(t *testing.T) {
	url, _ := serve(t, false, func(c *Conn) {
		for _, size := range []int{1000, 1001} {
			c.Send(context.Background(), Message{Body: make([]byte, size)}, limit)
		}
		c.Drain()
	})
	c := open(t, url, nil)
	for _, want := range []error{nil, ErrTooBig} {
		if err := c.Next(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadMessage(nil, 1000, 0); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// TestFarewell: what is queued and the reason arrive before the end, although
// the one who ends has unread input.
func TestFarewell(t *testing.T) {
	url, _ := serve(t, false, func(c *Conn) {
		c.Send(context.Background(), Message{Body: make([]byte, 100000)}, limit)
		c.Finish(StatusPolicy, strings.Repeat("because ", 20))
		if err := c.Send(context.Background(), Message{}, limit); !errors.Is(err, net.ErrClosed) {
			t.Errorf("sending after Finish: %v", err)
		}
		c.Drain()
	})
	c := open(t, url, nil)
	for range 50 {
		c.Send(context.Background(), Message{Body: make([]byte, 10000)}, limit)
	}
	if err := c.Next(); err != nil {
		t.Fatal(err)
	}
	if b, err := c.ReadMessage(nil, limit, 0); err != nil || len(b) != 100000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	err := c.Next()
	if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), `1008 "because because`) {
		t.Errorf("got %v", err)
	}
}

func TestFail(t *testing.T) {
	url, _ := serve(t, false, func(c *Conn) { c.Drain() })
	c := open(t, url, nil)
	why := errors.New("I changed my mind")
	time.AfterFunc(time.Millisecond, func() { c.Fail(why) })
	if err := c.Next(); !errors.Is(err, why) {
		t.Errorf("the reader got %v", err)
	}
	<-c.Done()
	if _, err := c.TrySend(Message{}, limit); !errors.Is(err, why) {
		t.Errorf("a sender got %v", err)
	}
	c.Fail(errors.New("another reason"))
	if err := c.Next(); !errors.Is(err, why) {
		t.Errorf("the reader got %v", err)
	}
}

// TestQueue fills the queue of a connection whose peer does not read.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		o := newOutbox(nonblock.NewConn(near), true, time.Minute)
		go o.run()
		owns := new(owner)
		add := func() (room <-chan struct{}, err error) {
			return o.add(Message{Body: make([]byte, 1000), Owner: owns}, 2500)
		}
		for n := range 3 {
			if room, err := add(); err != nil || (room != nil) != (n == 2) {
				t.Fatalf("message %d: %v, %v", n, room, err)
			}
			synctest.Wait() // the writer takes the first one alone
		}
		time.Sleep(time.Second)
		if n, stalled := o.queued(); n != 2000 || stalled != time.Second {
			t.Errorf("%d bytes are queued, stalled for %v", n, stalled)
		}
		// The peer takes the first message: there is room.
		room, _ := add()
		if _, err := io.ReadFull(far, make([]byte, 8+1000)); err != nil {
			t.Fatal(err)
		}
		<-room
		if room, err := add(); room != nil || err != nil {
			t.Errorf("%v, %v", room, err)
		}
		if n, stalled := o.queued(); n != 2000 || stalled != 0 {
			t.Errorf("%d bytes are queued, stalled for %v", n, stalled)
		}
		// A message of any size is taken by an empty queue, and a ping goes ahead
		// of the messages.
		o.ping()
		if _, err := io.ReadFull(far, make([]byte, 8+1000)); err != nil {
			t.Fatal(err)
		}
		ping := make([]byte, 6)
		if _, err := io.ReadFull(far, ping); err != nil || ping[0] != 0x89 {
			t.Errorf("% x, %v", ping, err)
		}
		if _, err := io.ReadFull(far, make([]byte, 8+1000)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if room, err := o.add(Message{Body: make([]byte, 9000), Owner: owns}, 2500); room != nil || err != nil {
			t.Errorf("%v, %v", room, err)
		}
		// In the end the peer takes nothing for too long.
		<-o.done
		if err := o.cause(); !errors.Is(err, errSlow) {
			t.Errorf("it ended with %v", err)
		}
		if n := owns.released.Load(); n != 4 {
			t.Errorf("four messages were released %d times", n)
		}
		if n, _ := o.queued(); n != 0 {
			t.Errorf("%d bytes are queued after the end", n)
		}
	})
}

// TestBytesBehindTheHandshake: a client may send its first message together with
// the handshake.
func TestBytesBehindTheHandshake(t *testing.T) {
	got := make(chan string, 1)
	url, _ := serve(t, false, func(c *Conn) {
		if c.Next() == nil {
			b, _ := c.ReadMessage(nil, limit, 0)
			got <- string(b)
		}
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	msg := strings.Repeat("early", 2000)
	frame, key := appendMaskedHeader(nil, opText, len(msg))
	at := len(frame)
	frame = append(frame, msg...)
	mask(frame[at:], key, 0)
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n%s", frame)
	if s := <-got; s != msg {
		t.Errorf("got %d bytes", len(s))
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestMask(t *testing.T) {
	for range 200 {
		p := make([]byte, rand.IntN(1000))
		var key [4]byte
		for i := range key {
			key[i] = byte(rand.Uint32())
		}
		pos := rand.IntN(9)
		want := bytes.Clone(p)
		for i := range want {
			want[i] ^= key[(pos+i)%4]
		}
		mask(p, key, pos)
		if !bytes.Equal(p, want) {
			t.Fatalf("%d bytes from position %d", len(p), pos)
		}
	}
}

func TestHandshakeErrors(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusMovedPermanently)
		case "/hangup":
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(w, "hello\nworld")
		}
	}))
	defer web.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer secure.Close()
	base := strings.Replace(web.URL, "http", "ws", 1)
	tests := []struct{ url, want string }{
		{base + "/", `answered HTTP 200 instead of a websocket ("hello\nworld")`},
		{base + "/moved", `answered HTTP 301 instead of a websocket (a redirect to "http://elsewhere.example/")`},
		{base + "/hangup", "closed the connection during the websocket handshake"},
		{strings.Replace(secure.URL, "https", "wss", 1), "cannot be reached: TLS: "},
		{strings.Replace(web.URL, "http", "wss", 1), "cannot be reached: TLS: "},
	}
	for _, tt := range tests {
		c, err := Dial(t.Context(), tt.url, DialOptions{})
		if err == nil {
			c.CloseNow()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", tt.url, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, base, DialOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
