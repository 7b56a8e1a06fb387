package relayd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// serveFile makes this test binary serve a relay that keeps events in that file
// until it is killed.
const serveFile = "RELAYD_TEST_SERVE_FILE"

func serveFromFile(path string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s, err := relayd.Open(relayd.Options{Path: path, Keep: relayd.AllKinds()})
	if err != nil {
		return err
	}
	fmt.Printf("ws://%s\n", l.Addr())
	return http.Serve(l, s)
}

// open runs a relay with a file until stop or the end of the test.
func open(t *testing.T, opts relayd.Options) (url string, s *relayd.Server, stop func()) {
	t.Helper()
	s, err := relayd.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	stop = sync.OnceFunc(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
	})
	t.Cleanup(stop)
	return strings.Replace(web.URL, "http", "ws", 1), s, stop
}

// TestEventsOutliveTheRelay: what is kept is there after a restart, and only
// that: no older versions, nothing deleted, nothing of a kind that is not kept any more. What was deleted stays deleted.
func TestEventsOutliveTheRelay(t *testing.T) {
	opts := relayd.Options{Path: filepath.Join(t.TempDir(), "relay.db"), Keep: relayd.AllKinds()}
	a := newAuthor(t)
	at := func(n int) time.Time { return time.Now().Add(time.Duration(n-100) * time.Second) }
	url, _, stop := open(t, opts)
	c := connect(t, url)
	publish := func(raw, id string) string {
		t.Helper()
		c.send(event(raw))
		c.expect(ok(id, true, ""))
		return raw
	}
	publish(a.sign(10002, at(1), "older"))
	newer := publish(a.sign(10002, at(2), "newer"))
	note := publish(a.sign(1, at(3), "note"))
	gone, goneID := a.sign(1, at(4), "gone")
	publish(gone, goneID)
	deletion := publish(a.sign(5, at(5), "", []string{"e", goneID}))
	publish(a.sign(7, at(7), "of a kind not kept later"))
	c.conn.CloseNow()
	stop()

	keep, err := relayd.ParseKinds([]string{"1", "5", "10002", "30000-39999"})
	if err != nil {
		t.Fatal(err)
	}
	opts.Keep = keep
	for range 2 {
		url, s, stop := open(t, opts)
		if _, err := relayd.Open(opts); err == nil || !strings.Contains(err.Error(), "in use by another relay") {
			t.Errorf("opened twice: %v", err)
		}
		c = connect(t, url)
		c.send(`["REQ","s",{}]`)
		c.expect(delivered("s", deletion), delivered("s", note), delivered("s", newer), eose("s"))
		c.send(event(gone))
		c.expect(ok(goneID, false, "blocked: its author has deleted this event"))
		if st := s.Stats(); st.Stored != 3 {
			t.Errorf("%d events are stored", st.Stored)
		}
		c.conn.CloseNow()
		stop()
	}
}

func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, dir, filepath.Join(dir, "none", "relay.db")} {
		if s, err := relayd.Open(relayd.Options{Path: p}); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", p, err)
			s.Close()
		}
	}
}

// TestNothingAcknowledgedIsLost kills a relay in the middle of writing, several
// times, and looks for everything that it had acknowledged: each event, or a
// newer one of its address.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.db")
	a := newAuthor(t)
	newest := make(map[string]int64) // acknowledged, by d tag
	notes := make(map[string]bool)   // acknowledged, by id
	version := time.Now().Add(-100 * 24 * time.Hour).Unix()
	for range 4 {
		url, kill := startFile(t, path)
		var mu sync.Mutex
		var writers sync.WaitGroup
		enough := make(chan struct{})
		isEnough := sync.OnceFunc(func() { close(enough) })
		acknowledged := 0
		for w := range 4 {
			c := connect(t, url)
			base := version
			writers.Go(func() {
				for n := range 100_000 {
					at, d := base+int64(n), fmt.Sprint(w, n%10)
					raw, id := a.sign(30001, time.Unix(at, 0), "", []string{"d", d})
					if n%3 == 0 {
						raw, id = a.sign(1, time.Unix(at, 0), fmt.Sprint(w, n))
					}
					if !published(c.conn, raw, id) {
						return
					}
					mu.Lock()
					if n%3 == 0 {
						notes[id] = true
					} else {
						newest[d] = max(newest[d], at)
					}
					if acknowledged++; acknowledged == 150 {
						isEnough()
					}
					mu.Unlock()
				}
			})
		}
		go func() {
			writers.Wait() // too early, if somebody was refused
			isEnough()
		}()
		<-enough
		kill()
		writers.Wait()
		if acknowledged < 150 {
			t.Fatalf("only %d events were acknowledged", acknowledged)
		}
		version += 200_000
		checkKept(t, path, newest, notes)
	}
}

// published publishes an event and reports whether it was acknowledged.
func published(conn *websocket.Conn, raw, id string) bool {
	if conn.Write(context.Background(), websocket.MessageText, []byte(event(raw))) != nil {
		return false
	}
	_, msg, err := conn.Read(context.Background())
	return err == nil && string(msg) == ok(id, true, "")
}

func checkKept(t *testing.T, path string, newest map[string]int64, notes map[string]bool) {
	t.Helper()
	url, s, stop := open(t, relayd.Options{Path: path, Keep: relayd.AllKinds(), Limits: relayd.Limits{MaxLimit: 10000}})
	defer stop()
	c := connect(t, url)
	c.send(`["REQ","s",{}]`)
	have, versions := make(map[string]bool), make(map[string]int64)
	for {
		msg := c.read()
		if msg == eose("s") {
			break
		}
		var parts []json.RawMessage
		var e struct {
			ID        string
			Kind      int
			CreatedAt int64 `json:"created_at"`
			Tags      [][]string
		}
		if err := errors.Join(json.Unmarshal([]byte(msg), &parts), json.Unmarshal(parts[2], &e)); err != nil {
			t.Fatal(err)
		}
		have[e.ID] = true
		if e.Kind == 30001 {
			d := e.Tags[0][1]
			if versions[d] != 0 {
				t.Errorf("two versions of %s", d)
			}
			versions[d] = e.CreatedAt
		}
	}
	for id := range notes {
		if !have[id] {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
	for d, at := range newest {
		if versions[d] < at {
			t.Errorf("of %s version %d was acknowledged and %d is there", d, at, versions[d])
		}
	}
	if len(have) != s.Stats().Stored {
		t.Errorf("%d of %d events came", len(have), s.Stats().Stored)
	}
}

// startFile starts serveFromFile in a process. kill does not let it end in order.
func startFile(t *testing.T, path string) (url string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveFile+"="+path)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line), kill
}
