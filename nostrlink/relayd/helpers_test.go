package relayd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(goNostrURL); url != "" {
		if err := useGoNostr(url); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ok")
		os.Exit(0)
	}
	if kind := os.Getenv(serveAs); kind != "" {
		if err := serveRelay(kind, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if path := os.Getenv(serveFile); path != "" {
		fmt.Fprintln(os.Stderr, serveFromFile(path))
		os.Exit(1)
	}
	if profile := os.Getenv(benchServe); profile != "" {
		if err := serveForBenchmark(profile); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// start runs a relay on a loopback socket until the test ends.
func start(t testing.TB, opts relayd.Options) (url string, s *relayd.Server) {
	t.Helper()
	s = relayd.New(opts)
	web := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		web.Close()
	})
	return strings.Replace(web.URL, "http", "ws", 1), s
}

// startInMemory is start inside a testing/synctest bubble.
func startInMemory(t testing.TB, opts relayd.Options) (*relaytest.Listener, *relayd.Server) {
	t.Helper()
	l := relaytest.NewListener()
	s := relayd.New(opts)
	web := &http.Server{Handler: s}
	var serving sync.WaitGroup
	serving.Go(func() { web.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		web.Close()
		serving.Wait()
	})
	return l, s
}

// connectTo is connect in memory.
func connectTo(t testing.TB, l *relaytest.Listener) *rawClient {
	t.Helper()
	c, _, err := websocket.Dial(context.Background(), "ws://relay.test", &websocket.DialOptions{HTTPClient: clientOf(l)})
	if err != nil {
		t.Fatal(err)
	}
	return greeted(t, c)
}

func clientOf(l *relaytest.Listener) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: l.DialContext}}
}

// rawClient writes and reads messages as text.
type rawClient struct {
	t         testing.TB
	conn      *websocket.Conn
	challenge string
}

// greeted reads the challenge that the relay begins with.
func greeted(t testing.TB, conn *websocket.Conn) *rawClient {
	t.Helper()
	conn.SetReadLimit(-1)
	t.Cleanup(func() { conn.CloseNow() })
	c := &rawClient{t: t, conn: conn}
	if _, err := fmt.Sscanf(c.read(), `["AUTH",%q]`, &c.challenge); err != nil {
		t.Fatal(err)
	}
	return c
}

func connect(t testing.TB, url string) *rawClient {
	t.Helper()
	c, _, err := websocket.Dial(context.Background(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return greeted(t, c)
}

// authenticate proves that the client holds a key, to a relay named relay.test.
func (c *rawClient) authenticate(a author) {
	c.t.Helper()
	raw, id := a.now(22242, "", []string{"relay", "ws://relay.test"}, []string{"challenge", c.challenge})
	c.send(`["AUTH",` + raw + `]`)
	c.expect(ok(id, true, ""))
}

func (c *rawClient) send(msg string) {
	c.t.Helper()
	if err := c.conn.Write(context.Background(), websocket.MessageText, []byte(msg)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawClient) read() string {
	c.t.Helper()
	_, b, err := c.conn.Read(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// expect reads messages and compares them; "…" stands for anything in the end.
func (c *rawClient) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		got := c.read()
		if begin, ok := strings.CutSuffix(w, "…"); got != w && !(ok && strings.HasPrefix(got, begin)) {
			c.t.Fatalf("got  %.300s\nwant %.300s", got, w)
		}
	}
}

type author struct {
	t  testing.TB
	sk envelope.SecretKey
}

func newAuthor(t testing.TB) author {
	t.Helper()
	sk := envelopetest.NewKey(t)
	return author{t, sk}
}

func (a author) hex() string { return a.sk.Public().Hex() }

func (a author) sign(kind int, at time.Time, content string, tags ...[]string) (raw, id string) {
	a.t.Helper()
	b, eid := envelopetest.Sign(a.t, a.sk, envelope.Template{Kind: kind, CreatedAt: at, Tags: tags, Content: []byte(content)})
	return string(b), fmt.Sprintf("%x", eid)
}

func (a author) now(kind int, content string, tags ...[]string) (raw, id string) {
	return a.sign(kind, time.Now(), content, tags...)
}

func event(raw string) string { return `["EVENT",` + raw + `]` }

func delivered(sub, raw string) string { return `["EVENT",` + quote(sub) + `,` + raw + `]` }

func ok(id string, accepted bool, reason string) string {
	msg := fmt.Sprintf(`["OK","%s",%v,%s]`, id, accepted, quote(reason))
	return strings.Replace(msg, `…"]`, `…`, 1)
}

func eose(sub string) string { return `["EOSE",` + quote(sub) + `]` }

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
