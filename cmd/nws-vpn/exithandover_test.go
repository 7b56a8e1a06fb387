package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// TestExitIsReplaced: a new process takes over while a flow goes on in the old
// one, which ends after it.
func TestExitIsReplaced(t *testing.T) {
	// What only one process can have is handed over.
	e := newTestExit(t, fmt.Sprintf("quota_month = \"1GB\"\nmetrics = \"unix:DIR/metrics\"\npublic_address = %q\n", sharedAddress(t)))
	old := e.start(e.flags, "ready")
	alice, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	to, link := echoServer(t), e.wantIn("alice", showing(&alice, ""))
	long := dialFlow(t, link, to)
	echo(t, long, "before")

	second := e.flags
	if err := runExit(t.Context(), io.Discard, &second); err == nil || !strings.Contains(err.Error(), "--takeover") {
		t.Fatalf("a second exit with the same directory: %v", err)
	}
	second.takeover = true
	e.start(second, "taken over")

	// Who comes now is served by the new one, while the old flow goes on.
	echo(t, long, strings.Repeat("y", 100_000))
	echo(t, dialFlow(t, e.entry(e.key), to), "new")
	s := e.status()
	if s.State != "running" || s.Flows.TCP != 1 || s.Bytes != (exitBytes{3, 3}) {
		t.Errorf("the new process: %+v", s)
	}
	// The old one is shown, but not one that was killed.
	killed := filepath.Join(e.flags.keyPath+".state", exitOlderDir, "1")
	if err := os.Mkdir(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the old process is shown, and that alone", func() bool {
		s = e.status()
		_, err := os.Stat(killed)
		o := s.Older
		return len(o) == 1 && o[0].PID == os.Getpid() && o[0].Flows != nil && *o[0].Flows == 1 && err != nil
	})
	var out bytes.Buffer
	if err := printExitReport(&out, &s, time.Now()); err != nil || !strings.Contains(out.String(), " 1 open\n") {
		t.Errorf("%v, shown:\n%s", err, out.String())
	}
	select {
	case err := <-old.ended:
		t.Fatalf("the old one has ended while it had a flow: %v", err)
	default:
	}
	// The entry of the old one comes over by itself, and keeps its flow.
	await.That(t, "it has its new session", func() bool { return e.status().Sessions == 2 })
	echo(t, long, "the end")
	long.Close()
	if err := <-old.ended; err != nil {
		t.Errorf("the old one: %v", err)
	}
	echo(t, dialFlow(t, link, to), "again")
	s = e.status()
	if s.Flows.TCP != 2 || len(s.Older) > 0 {
		t.Errorf("the new process: %+v", s)
	}
	if _, err := os.Stat(filepath.Dir(killed)); err == nil {
		t.Error("the old process leaves a directory")
	}
	// What the old flow used counts, once.
	c := slices.IndexFunc(s.Clients, func(c exitClient) bool { return c.NPub == alice.Public().NPub() })
	if used := int64(2*len("before"+"the end"+"again") + 2*100_000); c < 0 || s.Clients[c].UsedMonth != used {
		t.Errorf("alice has used %d bytes: %+v", used, s.Clients)
	}
}

// sharedAddress is one that processes can listen at which share it, and no other.
func sharedAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{Control: shareAddress}).Listen(t.Context(), "tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// An exit whose successor cannot have all that it needs stays.
func TestTakeoverWithATakenAddress(t *testing.T) {
	e := newTestExit(t, "metrics = \"127.0.0.1:0\"\n")
	e.start(e.flags, "ready")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	e.write(fmt.Sprintf("metrics = %q\n", taken.Addr()))
	next := e.flags
	next.takeover = true
	if err := runExit(t.Context(), io.Discard, &next); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("the new process ended with: %v", err)
	}
	if s := e.status(); s.State != "running" {
		t.Errorf("the old one is %s", s.State)
	}
}

// What a predecessor had and its successor does not get, that goes on without, and
// tries again.
func TestTakeoverWithoutFigures(t *testing.T) {
	e := newTestExit(t, "metrics = \"unix:DIR/figures/socket\"\n")
	figures := filepath.Join(e.dir, "figures")
	if err := os.Mkdir(figures, 0o700); err != nil {
		t.Fatal(err)
	}
	e.start(e.flags, "ready")
	if err := os.Rename(figures, figures+".old"); err != nil {
		t.Fatal(err)
	}
	next := e.flags
	next.takeover = true
	x := e.start(next, "taken over")
	if s := e.status(); s.State != "running" {
		t.Errorf("the new process is %s", s.State)
	}
	echo(t, dialFlow(t, e.entry(e.key), echoServer(t)), "served")
	if err := os.Mkdir(figures, 0o700); err != nil {
		t.Fatal(err)
	}
	for line := ""; !strings.HasPrefix(line, "metrics on "); {
		select {
		case line = <-x.lines:
		case err := <-x.ended:
			t.Fatalf("the new process has ended: %v", err)
		}
	}
}

// A new process that is ended as it takes over leaves the socket to the old one.
func TestTakeoverThatIsEnded(t *testing.T) {
	e := newTestExit(t, "")
	state := e.flags.keyPath + ".state"
	var young *runningExit
	isYoung := make(chan struct{})
	old := http.NewServeMux()
	old.HandleFunc("POST /save", func(w http.ResponseWriter, _ *http.Request) { control.Answer(w, nil) })
	old.HandleFunc("GET /alive", func(w http.ResponseWriter, _ *http.Request) { control.Answer(w, nil) })
	old.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		<-isYoung
		young.stop()
		control.Answer(w, nil)
	})
	socket, err := control.Serve(state, old)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	next := e.flags
	next.takeover = true
	young = e.start(next, "ready")
	close(isYoung)
	if err := <-young.ended; err != nil {
		t.Error(err)
	}
	if _, err := e.ask(http.MethodGet, "/alive"); err != nil {
		t.Errorf("the old process: %v", err)
	}
}

// gate is another address of a relay, which lets nobody through before it is opened.
func gate(t *testing.T, relay string) (url string, open func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	opened := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer in.Close()
				select {
				case <-opened:
				case <-ctx.Done():
					return
				}
				out, err := net.Dial("tcp", strings.TrimPrefix(relay, "ws://"))
				if err != nil {
					return
				}
				stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
				defer stop()
				serving.Go(func() { io.Copy(out, in); out.Close() })
				io.Copy(in, out)
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); serving.Wait() })
	return "ws://" + l.Addr().String(), sync.OnceFunc(func() { close(opened) })
}

// Who is to replace a process that has ended meanwhile takes its place, and what the
// clients have used of that one counts.
func TestTakeoverFromAnExitThatHasEnded(t *testing.T) {
	began := time.Now().UTC().Month()
	e := newTestExit(t, "names.blog = { key_file = \"DIR/blog.key\" }\n")
	blog := e.newKey("blog.key")
	old := e.start(e.flags, "ready on "+e.relay+" (blog)")
	alice, to := envelopetest.NewKey(t), echoServer(t)
	flow := dialFlow(t, e.wantIn("alice", showing(&alice, "")), to)

	url, open := gate(t, e.relay)
	e.write(fmt.Sprintf("names.blog = { key_file = \"DIR/blog.key\", relays = [%q] }\n", url))
	next := e.flags
	next.takeover = true
	young := e.start(next, "ready on "+e.relay)
	echo(t, flow, strings.Repeat("x", 2000)) // not saved before the old one ends
	old.stop()
	if err := <-old.ended; err != nil {
		t.Error(err)
	}
	open()
	for line := ""; line != "taken over"; {
		select {
		case line = <-young.lines:
		case err := <-young.ended:
			t.Fatalf("the new process has ended: %v", err)
		}
	}
	if s := e.status(); s.State != "running" {
		t.Errorf("the new process is %s", s.State)
	}
	e.entry(blog)
	young.stop()
	if err := <-young.ended; err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(filepath.Join(e.flags.keyPath+".state", exitUsageFile))
	if time.Now().UTC().Month() != began {
		t.Skip("a month has ended meanwhile")
	}
	if err != nil || !bytes.Contains(b, []byte(`"month":4000`)) {
		t.Errorf("kept: %s, %v", b, err)
	}
}

// manager hears what the service's manager is told.
func manager(t *testing.T) (heard func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Skip("no manager here: ", err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

// child is a process that takes over, or ends when it is killed.
func child(pid int) *startedExit {
	c := &startedExit{pid: pid, ended: make(chan struct{})}
	c.kill = sync.OnceValue(func() error { close(c.ended); return nil })
	return c
}

func (c *startedExit) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// A new process that is about to take over as its time ends has replaced this one.
func TestRestartAtItsLimit(t *testing.T) {
	heard := manager(t)
	r := bareExit(t, exit.Config{})
	letGo := make(chan struct{})
	r.closeMetrics = func() { <-letGo }
	next, begun := child(4711), time.Now()
	if _, err := r.beginDrain(begun, 0, &successor{pid: next.pid}); err != nil {
		t.Fatal(err)
	}
	var handing sync.WaitGroup
	late, cancel := context.WithCancel(t.Context())
	cancel()
	handing.Go(func() {
		if err := r.letIn(late, next); err != nil {
			t.Errorf("the restart: %v", err)
		}
	})
	handing.Go(func() {
		if err := r.drain(0, &successor{pid: next.pid}); err != nil {
			t.Error(err)
		}
	})
	for _, other := range []*successor{{pid: 1}, nil} {
		if err := r.drain(0, other); err == nil || !strings.Contains(err.Error(), "4711") {
			t.Errorf("it drains for another reason meanwhile: %v", err)
		}
	}
	if r.isDrained(begun.Add(time.Hour)) {
		t.Error("it ends before it has let go")
	}
	close(letGo)
	if got := heard(); got != "MAINPID=4711" {
		t.Errorf("the manager is told %q", got)
	}
	handing.Wait()
	if next.hasEnded() {
		t.Error("the new process was ended")
	}
	if !r.isDrained(begun.Add(time.Hour)) {
		t.Error("it does not end when it has let go")
	}
}

// A new process that does not take over is ended, and refused from then on.
func TestRestartThatFails(t *testing.T) {
	for what, fail := range map[string]func(r *exitRun, next *startedExit, limit func()){
		"reached no relay in time": func(_ *exitRun, _ *startedExit, limit func()) { limit() },
		"is to end":                func(r *exitRun, _ *startedExit, _ func()) { r.drain(0, nil) },
		"has ended (broken)": func(_ *exitRun, next *startedExit, _ func()) {
			next.err = errors.New("broken")
			next.kill()
		},
	} {
		r := bareExit(t, exit.Config{})
		next := child(4711)
		ctx, cancel := context.WithCancel(await.Context(t))
		done := make(chan error, 1)
		go func() { done <- r.letIn(ctx, next) }()
		fail(r, next, cancel)
		if err := <-done; err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
		cancel()
		if !next.hasEnded() {
			t.Errorf("the process that %s goes on", what)
		}
		if r.isReplaced() || r.inherited() != nil {
			t.Errorf("replaced by one that %s", what)
		}
	}
	r := bareExit(t, exit.Config{})
	if err := r.drain(0, &successor{until: time.Now().Add(-time.Second)}); err == nil || r.isDraining() {
		t.Errorf("a new process that has given up takes over: %v", err)
	}
	if !r.refuseSuccessors(true) || r.drain(0, &successor{}) == nil || r.isDraining() {
		t.Error("a process takes over that is not to")
	}
}
