package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// testExit is what exits of a test share: a relay, a key and a configuration.
type testExit struct {
	t     *testing.T
	dir   string
	relay string
	key   envelope.PublicKey
	flags exitFlags
}

func newTestExit(t *testing.T, text string) *testExit {
	t.Helper()
	e := &testExit{t: t, dir: t.TempDir(), relay: serveTestRelay(t, func(*config.Relay) {}).URL()}
	e.key = e.newKey("key")
	e.flags = exitFlags{keyPath: filepath.Join(e.dir, "key"), relays: []string{e.relay}, allowRoot: true}
	e.flags.file = filepath.Join(e.dir, "nws.toml")
	e.write(text)
	return e
}

func (e *testExit) newKey(file string) envelope.PublicKey {
	e.t.Helper()
	key, err := envelope.GenerateSecretKey()
	if err == nil {
		err = keyfile.Create(filepath.Join(e.dir, file), key)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return key.Public()
}

// write writes the configuration of section [exit].
func (e *testExit) write(text string) {
	e.t.Helper()
	text = "[exit]\nallow_private = [\"127.0.0.0/8\"]\npolicy = \"open\"\n" + strings.ReplaceAll(text, "DIR", e.dir)
	if err := os.WriteFile(e.flags.file, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// runningExit is an exit that serves.
type runningExit struct {
	said  string // the line that it was ready with
	lines chan string
	ended chan error
	stop  context.CancelFunc
}

// start runs an exit until it is ready.
func (e *testExit) start(flags exitFlags, until string) *runningExit {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	x := &runningExit{lines: make(chan string, 100), ended: make(chan error, 1), stop: cancel}
	r, w := io.Pipe()
	var reading, running sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			x.lines <- lines.Text()
		}
	})
	running.Go(func() {
		x.ended <- runExit(ctx, w, &flags)
		w.Close()
	})
	e.t.Cleanup(func() { cancel(); running.Wait(); reading.Wait() })
	for {
		select {
		case line := <-x.lines:
			if strings.HasPrefix(line, until) {
				x.said = line
				return x
			}
		case err := <-x.ended:
			e.t.Fatalf("the exit ended before it was %s: %v", until, err)
		}
	}
}

// ask asks the exit that has the state directory.
func (e *testExit) ask(method, path string) ([]byte, error) {
	return control.Do(e.t.Context(), e.flags.keyPath+".state", method, path)
}

func (e *testExit) status() (s exitReport) {
	e.t.Helper()
	b, err := e.ask(http.MethodGet, "/status?clients=10")
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

// entry is a link to a name of the exit, with a session.
func (e *testExit) entry(key envelope.PublicKey) *nostrlink.Link {
	e.t.Helper()
	link := e.link(key)
	if err := link.Connect(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	return link
}

// link is a link to a name of the exit.
func (e *testExit) link(key envelope.PublicKey) *nostrlink.Link {
	e.t.Helper()
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	link := hub.NewLink(key, []string{e.relay}, nostrlink.LinkOptions{Mode: nostrlink.SessionOnly})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { link.Serve(ctx) })
	e.t.Cleanup(func() { cancel(); serving.Wait(); hub.Close() })
	return link
}

// echoServer returns what it gets, connection by connection.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { io.Copy(c, c); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// echo sends text through a flow and wants it back.
func echo(t *testing.T, flow net.Conn, text string) {
	t.Helper()
	if _, err := flow.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(flow, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v; want %q", got, err, text)
	}
}

func dialFlow(t *testing.T, l *nostrlink.Link, address string) net.Conn {
	t.Helper()
	flow, err := l.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flow.Close() })
	return flow
}

// leak check 51: the policy is read again, open flows stay, and a configuration
// that is wrong changes nothing.
func TestExitReloads(t *testing.T) {
	e := newTestExit(t, "")
	e.start(e.flags, "ready")
	to, link := echoServer(t), e.entry(e.key)
	open := dialFlow(t, link, to)
	echo(t, open, "before")

	e.write("rules = [\"deny 127.0.0.0/8\"]\nquota_day = \"1GB\"\nmax_flows = 100\n")
	if _, err := e.ask(http.MethodPost, "/reload"); err != nil {
		t.Fatal(err)
	}
	if flow, err := link.DialContext(t.Context(), "tcp", to); err == nil {
		flow.Close()
		t.Error("what the new rules deny is dialed")
	}
	echo(t, open, "after")

	for _, wrong := range []string{"rules = []\nmax_flow = 1\n", "rules = []\nservices = { 443 = \"tls:127.0.0.1:80\" }\n", "rules = [\"permit *\"]\n", "[[["} {
		e.write(wrong)
		if _, err := e.ask(http.MethodPost, "/reload"); err == nil {
			t.Errorf("taken: %s", wrong)
		}
		if flow, err := link.DialContext(t.Context(), "tcp", to); err == nil {
			flow.Close()
			t.Errorf("after %q the old rules do not hold", wrong)
		}
	}
	e.write("max_flow = 1\n")
	if _, err := e.ask(http.MethodPost, "/reload"); err == nil || !strings.Contains(err.Error(), "nws.toml:4: exit.max_flow: ") || !strings.Contains(err.Error(), "max_flows") {
		t.Errorf("a wrong key: %v; want file, line, key and the nearest one", err)
	}
	e.write("")
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGHUP)
	}
	if err != nil {
		t.Skip("this system has no SIGHUP: ", err)
	}
	await.That(t, "the signal is heeded", func() bool {
		flow, err := link.DialContext(t.Context(), "tcp", to)
		if err == nil {
			flow.Close()
		}
		return err == nil
	})
	echo(t, open, "still")
}

func TestExitStatus(t *testing.T) {
	e := newTestExit(t, "max_client_flows = 1\n")
	e.start(e.flags, "ready")
	to, link := echoServer(t), e.entry(e.key)
	flow := dialFlow(t, link, to)
	echo(t, flow, strings.Repeat("x", 1000))
	if _, err := link.DialContext(t.Context(), "tcp", to); err == nil {
		t.Fatal("a second flow")
	}
	s := e.status()
	if s.State != "running" || s.Sessions != 1 || s.Flows.Open != 1 || s.Flows.TCP != 1 || s.Bytes != (exitBytes{1000, 1000}) ||
		s.Refused["limit"] != 1 || s.ClientsKnown != 1 || s.ClientsActive != 1 || len(s.Clients) != 1 {
		t.Fatalf("%+v", s)
	}
	if c := s.Clients[0]; c.NPub != "" || c.Flows != 1 || c.Opened != 1 || c.Sent != 1000 || c.Received != 1000 || c.Refused["limit"] != 1 {
		t.Errorf("%+v", c)
	}
	if n := s.Names; len(n) != 1 || n[0].NPub != e.key.NPub() || len(n[0].Relays) != 1 || !n[0].Relays[0].Connected {
		t.Errorf("%+v", n)
	}
	var out bytes.Buffer
	if err := printExitReport(&out, &s, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{e.key.NPub(), "sessions   1\n", "limit 1", "1 kB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// deadAddress is one on loopback where nobody listens, nor can before the test ends: a
// connection has it.
func deadAddress(t *testing.T) string {
	t.Helper()
	c, err := net.Dial("tcp", echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

func TestExitDrains(t *testing.T) {
	e := newTestExit(t, "")
	x := e.start(e.flags, "ready")
	to := echoServer(t)
	flow := dialFlow(t, e.entry(e.key), to)
	echo(t, flow, "before")
	if _, err := e.ask(http.MethodPost, "/drain?timeout=-1s"); err == nil {
		t.Error("a timeout before now")
	}
	if _, err := e.ask(http.MethodPost, "/drain"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := e.link(e.key).Connect(ctx); err == nil {
		t.Error("a new session")
	}
	if s := e.status(); s.State != "draining" {
		t.Errorf("state %q", s.State)
	}
	echo(t, flow, "after")
	// What takes too long is cut.
	if _, err := e.ask(http.MethodPost, "/drain?timeout=1ms"); err != nil {
		t.Fatal(err)
	}
	if err := <-x.ended; err != nil {
		t.Error(err)
	}
	if _, err := flow.Read(make([]byte, 1)); err == nil {
		t.Error("the flow goes on")
	}
	if _, err := e.ask(http.MethodGet, "/alive"); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("asked when it has ended: %v", err)
	}
}

// TestExitKeepsQuotas over a restart, of those who have proven who they are.
func TestExitKeepsQuotas(t *testing.T) {
	e := newTestExit(t, "quota_day = 1000\n")
	x := e.start(e.flags, "ready")
	alice := envelopetest.NewKey(t)
	to := echoServer(t)
	echo(t, dialFlow(t, e.wantIn("alice", showing(&alice, "")), to), strings.Repeat("x", 2000))
	x.stop()
	if err := <-x.ended; err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(e.flags.keyPath+".state", exitUsageFile))
	if err != nil || !bytes.Contains(b, []byte(`"bytes":4000`)) {
		t.Errorf("kept: %s, %v", b, err)
	}
}

// TestExitWithSeveralNames: each has its services, and does not tell of the
// others.
func TestExitWithSeveralNames(t *testing.T) {
	e := newTestExit(t, "")
	to := echoServer(t)
	blog := e.newKey("blog.key")
	e.write(fmt.Sprintf("services = { 80 = %q }\nnames.blog = { key_file = \"DIR/blog.key\", services = { 81 = %q } }\n", to, to))
	e.start(e.flags, "ready on "+e.relay+" (blog)")
	host := func(key envelope.PublicKey, port string) string {
		return net.JoinHostPort(name.Name{Key: key}.Host(), port)
	}
	first, second := e.entry(e.key), e.entry(blog)
	echo(t, dialFlow(t, first, host(e.key, "80")), "first")
	echo(t, dialFlow(t, second, host(blog, "81")), "second")
	echo(t, dialFlow(t, second, to), "beyond")
	for _, c := range []struct {
		via     *nostrlink.Link
		address string
	}{{first, host(e.key, "81")}, {first, host(blog, "81")}, {second, host(blog, "80")}, {second, host(e.key, "80")}} {
		if flow, err := c.via.DialContext(t.Context(), "tcp", c.address); err == nil {
			flow.Close()
			t.Errorf("%s is reached", c.address)
		}
	}
	if s := e.status(); len(s.Names) != 2 || s.Names[1].Label != "blog" || s.Names[1].NPub != blog.NPub() || s.Sessions != 2 {
		t.Errorf("%+v", s)
	}
	e.write(fmt.Sprintf("names.blog = { key_file = \"DIR/blog.key\", services = { 82 = %q } }\n", to))
	if _, err := e.ask(http.MethodPost, "/reload"); err != nil {
		t.Fatal(err)
	}
	echo(t, dialFlow(t, second, host(blog, "82")), "changed")
	if flow, err := first.DialContext(t.Context(), "tcp", host(e.key, "80")); err == nil {
		flow.Close()
		t.Error("a service that is gone is reached")
	}
}
