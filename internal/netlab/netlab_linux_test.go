package netlab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("NETLAB_TEST_ORPHAN") != "" {
		orphan()
	}
	goleak.VerifyTestMain(m)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
}

func newTestHost(t *testing.T) (*Lab, *Host) {
	t.Helper()
	needRoot(t)
	lab := New()
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := lab.Host("a")
	if err != nil {
		t.Fatal(err)
	}
	return lab, h
}

// routed is two hosts with a router between them.
func routed(t *testing.T) (a, b *Host) {
	t.Helper()
	lab, a := newTestHost(t)
	r, err := lab.Host("router")
	b, err2 := lab.Host("b")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		lab.Link(Port(a, "eth0", "10.1.0.2/24", "fd01::2/64"), Port(r, "a", "10.1.0.1/24", "fd01::1/64")),
		lab.Link(Port(b, "eth0", "10.2.0.2/24", "fd02::2/64"), Port(r, "b", "10.2.0.1/24", "fd02::1/64")),
		r.Forward(),
		a.Route("0.0.0.0/0", "10.1.0.1"), a.Route("::/0", "fd01::1"),
		b.Route("0.0.0.0/0", "10.2.0.1"), b.Route("::/0", "fd02::1"))
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestHostsReachEachOtherThroughARouter(t *testing.T) {
	a, b := routed(t)
	for _, address := range []string{"10.2.0.2:80", "[fd02::2]:80"} {
		l, err := b.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err == nil {
				io.WriteString(c, "from "+address)
				c.Close()
			}
		}()
		c, err := a.DialContext(testContext(t), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "from "+address {
			t.Errorf("read %q, %v", got, err)
		}
	}
}

func TestNamesAreNotDialled(t *testing.T) {
	_, h := newTestHost(t)
	if c, err := h.DialContext(testContext(t), "tcp", "localhost:80"); err == nil {
		c.Close()
		t.Error("a name was dialled")
	}
}

func TestSnifferSeesBothWays(t *testing.T) {
	a, b := routed(t)
	var mu sync.Mutex
	seen := map[string]int{}
	s, err := a.Sniff("eth0", func(p Packet) {
		mu.Lock()
		defer mu.Unlock()
		if p.Protocol == unix.IPPROTO_UDP && bytes.Contains(p.Data, []byte("probe-7731")) {
			seen[p.Source.String()+" "+p.Destination.String()+" "+strconv.FormatBool(p.Outgoing)]++
		} else if !p.Local() {
			seen[p.String()]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	server, err := b.ListenPacket("udp", "10.2.0.2:5000")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := a.ListenPacket("udp", "10.1.0.2:4000")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	buf := make([]byte, 100)
	if _, err := client.WriteTo([]byte("probe-7731"), server.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	n, from, err := server.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.WriteTo(buf[:n], from); err != nil {
		t.Fatal(err)
	}
	if _, _, err := client.ReadFrom(buf); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	const out, in = "10.1.0.2:4000 10.2.0.2:5000 true", "10.2.0.2:5000 10.1.0.2:4000 false"
	if len(seen) != 2 || seen[out] != 1 || seen[in] != 1 {
		t.Errorf("saw %v", seen)
	}
}

func TestFilesAreTheHostsOwn(t *testing.T) {
	_, h := newTestHost(t)
	before, _ := os.ReadFile("/etc/resolv.conf")
	err := h.Do(func() error {
		if err := os.WriteFile("/etc/resolv.conf.new", []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
			return err
		}
		return os.Rename("/etc/resolv.conf.new", "/etc/resolv.conf")
	})
	if err != nil {
		t.Fatal("a program could not replace resolv.conf:", err)
	}
	if got, err := h.ReadFile("/etc/resolv.conf"); err != nil || string(got) != "nameserver 192.0.2.1\n" {
		t.Errorf("the host reads %q, %v", got, err)
	}
	if after, _ := os.ReadFile("/etc/resolv.conf"); !bytes.Equal(before, after) {
		t.Error("the machine's resolv.conf changed")
	}
	want, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := h.ReadFile("/etc/passwd"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the host does not see the machine's passwd: %v", err)
	}
}

func TestRouteNeedsANeighbour(t *testing.T) {
	a, _ := routed(t)
	if err := a.Route("192.0.2.0/24", "10.9.9.9"); err == nil {
		t.Error("a route by way of nobody was added")
	}
}

func TestSnapshotShowsWhatChanged(t *testing.T) {
	a, _ := routed(t)
	first, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.Snapshot(); err != nil || again != first {
		t.Errorf("two snapshots of the same host differ: %v\n%s\n%s", err, first, again)
	}
	for name, change := range map[string]func() error{
		"route":  func() error { return a.Route("192.0.2.0/24", "10.1.0.1") },
		"route6": func() error { return a.Route("2001:db8::/32", "fd01::1") },
		"sysctl": func() error { return a.Sysctl("net/ipv4/conf/all/src_valid_mark", "1") },
		"file":   func() error { return a.WriteFile("/etc/resolv.conf", []byte("x")) },
	} {
		before, _ := a.Snapshot()
		if err := change(); err != nil {
			t.Fatal(name, err)
		}
		if after, err := a.Snapshot(); err != nil || after == before {
			t.Errorf("%s: the snapshot did not change: %v", name, err)
		}
	}
}

func TestRun(t *testing.T) {
	_, h := newTestHost(t)
	var lines []string
	res, err := h.Run(testContext(t), CommandOptions{
		Env: []string{"WORD=two"}, Stdin: strings.NewReader("three\n"), OnLine: func(l string) { lines = append(lines, l) },
	}, "/bin/sh", "-c", `hostname=$(cat /etc/hostname); echo one; echo $WORD >&2; cat; printf "$hostname"; exit 3`)
	if err != nil {
		t.Fatal(err)
	}
	if res.Code != 3 || res.Stdout != "one\nthree\na" || len(lines) != 4 {
		t.Errorf("got %+v, lines %q", res, lines)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	_, h := newTestHost(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	_, err := h.Run(ctx, CommandOptions{OnLine: func(string) { cancel(why) }}, "/bin/sh", "-c", "echo; exec sleep 1000")
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestWaitLine(t *testing.T) {
	_, h := newTestHost(t)
	p, err := h.Start(CommandOptions{}, "/bin/sh", "-c", "echo one; echo two; read x")
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	line, err := p.WaitLine(ctx, func(l string) bool { return l == "two" })
	if err != nil || line != "two" {
		t.Errorf("got %q, %v", line, err)
	}
	if _, err := p.WaitLine(ctx, func(l string) bool { return l == "three" }); err == nil || !strings.Contains(err.Error(), "one\ntwo") {
		t.Errorf("the end of the process without the line gave: %v", err)
	}
}

func TestDoReportsAnEndedGoroutine(t *testing.T) {
	_, h := newTestHost(t)
	if err := h.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errNoReturn) {
		t.Errorf("got %v", err)
	}
}

func TestThreadsLeaveTheFirstAlone(t *testing.T) {
	var wg sync.WaitGroup
	for range 50 {
		wg.Add(1)
		onThread(func() {
			defer wg.Done()
			if unix.Gettid() == os.Getpid() {
				t.Error("ran on the process's first thread")
			}
		})
	}
	wg.Wait()
}

func TestCloseKillsWhatLeftItsParent(t *testing.T) {
	needRoot(t)
	lab := New()
	defer lab.Close()
	h, err := lab.Host("a")
	if err != nil {
		t.Fatal(err)
	}
	res, err := h.Run(testContext(t), CommandOptions{}, "/bin/sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	wait := gone(t, strings.TrimSpace(res.Stdout))
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	wait()
	if _, err := lab.Host("b"); err == nil {
		t.Error("a closed lab made a host")
	}
	if _, err := h.Start(CommandOptions{}, "/bin/true"); err == nil {
		t.Error("a closed host started a command")
	}
}

// gone returns a function that waits for a process's end. It is to be called
// while the process is known to live.
func gone(t *testing.T, pid string) func() {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		defer unix.Close(fd)
		for {
			ended, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
			if err == unix.EINTR {
				continue
			}
			if ended != 1 {
				t.Errorf("process %d lives on: %v", n, err)
			}
			return
		}
	}
}

// orphan is a process that starts another in a host and then waits to be
// killed with no time to clean up.
func orphan() {
	h, err := New().Host("orphaned")
	if err != nil {
		panic(err)
	}
	p, err := h.Start(CommandOptions{}, "/bin/sleep", "1000")
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(strconv.Itoa(p.PID()) + "\n")
	select {}
}

func TestNothingOutlivesAKill(t *testing.T) {
	needRoot(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "NETLAB_TEST_ORPHAN=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	wait := gone(t, strings.TrimSpace(line))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait()
}

func TestListenOutsideIsRefused(t *testing.T) {
	_, h := newTestHost(t)
	l, err := h.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the host's loopback is the machine's")
	}
}
