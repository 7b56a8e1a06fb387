package platform

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// Variables by which the test tells the process that is to be killed what to do.
const (
	killDir = "NWS_VPN_TEST_STATE_DIR"
	killAt  = "NWS_VPN_TEST_KILL_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		if err := beVictim(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if service := os.Getenv(fakeService); service != "" {
		fmt.Fprintln(os.Stderr, beService(service))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// beVictim is the process that TestKillAtEveryStep kills: it puts a tunnel up
// and down, and prints every point it passes.
func beVictim(dir string) error {
	at, err := strconv.Atoi(os.Getenv(killAt))
	if err != nil {
		return err
	}
	seen := 0
	c, err := open(dir, slog.New(slog.DiscardHandler), testEnv(func(point string) error {
		seen++
		fmt.Printf("point %s\n", point)
		if seen == at {
			err := unix.Kill(os.Getpid(), unix.SIGKILL)
			return fmt.Errorf("still alive: %v", err)
		}
		return nil
	}))
	if err != nil {
		return err
	}
	tun, err := tryOpenTUN("nws0")
	if err != nil {
		return err
	}
	defer tun.Close()
	return errors.Join(c.Set(filterConfig()), c.Close())
}

// runVictim returns the points the process has passed until it was killed, or
// all of them.
func runVictim(t *testing.T, dir string, at int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir, killAt+"="+strconv.Itoa(at))
	cmd.Stderr = new(bytes.Buffer)
	out, err := cmd.Output()
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if (at == 0 && err != nil) || (at != 0 && !killed) {
		t.Fatalf("the process ended with %v:\n%s%s", err, out, cmd.Stderr)
	}
	var points []string
	for line := range strings.Lines(string(out)) {
		if p, ok := strings.CutPrefix(line, "point "); ok {
			points = append(points, strings.TrimSpace(p))
		}
	}
	return points
}

// resolvers are the ways a machine may have its resolver's file.
var resolvers = []struct {
	name string
	make func(t *testing.T)
}{
	{"file", func(t *testing.T) {}},
	{"link", func(t *testing.T) {
		must(t, os.WriteFile("/etc/stub.conf", []byte("nameserver 192.0.2.53\n"), 0o644))
		must(t, os.Remove("/etc/resolv.conf"))
		must(t, os.Symlink("../etc/stub.conf", "/etc/resolv.conf"))
		must(t, os.Lchown("/etc/resolv.conf", 9, 10))
	}},
	{"dangling link", func(t *testing.T) {
		must(t, os.Remove("/etc/resolv.conf"))
		must(t, os.Symlink("/run/nowhere/resolv.conf", "/etc/resolv.conf"))
	}},
	{"missing", func(t *testing.T) { must(t, os.Remove("/etc/resolv.conf")) }},
	{"mounted", func(t *testing.T) {
		must(t, os.WriteFile("/etc/behind.conf", []byte("nameserver 192.0.2.53\nnameserver 192.0.2.54\noptions ndots:2\n"), 0o604))
		must(t, unix.Mount("/etc/behind.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""))
	}},
	{"mounted in a read-only directory", func(t *testing.T) {
		must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
		must(t, os.WriteFile("/run/resolv.conf", []byte("nameserver 192.0.2.53\n"), 0o604))
		must(t, unix.Mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""))
		must(t, unix.Mount("", "/etc", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}},
	{"systemd-resolved", func(t *testing.T) {
		startBus(t, "resolved")
		must(t, os.Remove("/etc/resolv.conf"))
		must(t, os.Symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf"))
	}},
	{"NetworkManager", func(t *testing.T) { startBus(t, "nm") }},
	{"NetworkManager with servers of its own", func(t *testing.T) {
		putFake(nmConf, "192.0.2.99")
		startBus(t, "nm")
	}},
	{"openresolv", func(t *testing.T) { fakeResolvconf(t, openresolv) }},
	{"resolvconf", func(t *testing.T) { fakeResolvconf(t, debianResolv) }},
}

// TestKillAtEveryStep kills a process at every point of up and down, and repairs
// what it left: by CleanUp, twice, and by a new tunnel that takes it over.
//
// leak check 19: killed at every journalled step, then repaired, twice
func TestKillAtEveryStep(t *testing.T) {
	for i, r := range resolvers {
		t.Run(r.name, func(t *testing.T) {
			enterNamespaces(t)
			r.make(t)
			before := snapshot(t)
			points := runVictim(t, stateDir(t), 0)
			if len(points) < 60 {
				t.Fatalf("only %d points: %q", len(points), points)
			}
			if d := diff(before, snapshot(t)); d != "" {
				t.Fatalf("up and down leave a difference:\n%s", d)
			}
			for at, point := range points {
				// Only the resolver's file differs from the first time on.
				if i > 0 && !strings.Contains(point, "resolv") && !strings.Contains(point, "NetworkManager") && !strings.Contains(point, "SetLink") {
					continue
				}
				dir := stateDir(t)
				ways := []func(*testing.T, string){cleanUpTwice, takeOver}
				if at%2 == 1 {
					ways = ways[:1]
				}
				for _, how := range ways {
					runVictim(t, dir, at+1)
					how(t, dir)
					if d := diff(before, snapshot(t)); d != "" {
						t.Fatalf("killed at %q, it is not repaired:\n%s", point, d)
					}
				}
			}
		})
	}
}

func cleanUpTwice(t *testing.T, dir string) {
	t.Helper()
	must(t, CleanUp(dir, testLog(t)))
	once := snapshot(t)
	must(t, CleanUp(dir, testLog(t)))
	if d := diff(once, snapshot(t)); d != "" {
		t.Errorf("the second CleanUp made a difference:\n%s", d)
	}
	if _, err := os.Stat(dir + "/journal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CleanUp left the journal: %v", err)
	}
}

func takeOver(t *testing.T, dir string) {
	t.Helper()
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	tun := openTUN(t, "nws0")
	must(t, c.Set(filterConfig()))
	checkUp(t)
	must(t, c.Close())
	tun.Close()
}
