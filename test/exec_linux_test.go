package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// Where nobody finds the program and may write, in the client.
const (
	nobodyBinary = "/run/nws-vpn-for-all"
	nobodyDir    = "/run/nobody"
)

// execWorld is a world with a relay and an exit, in whose client everybody may
// open /dev/net/tun, as distributions ship it.
func execWorld(t *testing.T) *tunnel {
	t.Helper()
	needRoot(t)
	needProgram(t, "setpriv")
	tun := served(t)
	err := tun.Client.Do(func() error {
		// Without nodev, unlike the host's /run.
		const node = "/run/node"
		err := errors.Join(
			os.Mkdir(nobodyDir, 0o755), os.Chown(nobodyDir, 65534, 65534),
			os.WriteFile(nobodyBinary, nil, 0o755), unix.Mount(tun.Binary(), nobodyBinary, "", unix.MS_BIND, ""),
			os.Mkdir(node, 0o755), unix.Mount("tmpfs", node, "tmpfs", 0, "mode=755"))
		if err != nil {
			return err
		}
		return errors.Join(
			unix.Mknod(node+"/tun", unix.S_IFCHR, int(unix.Mkdev(10, 200))), os.Chmod(node+"/tun", 0o666),
			unix.Mount(node+"/tun", "/dev/net/tun", "", unix.MS_BIND, ""))
	})
	if err != nil {
		t.Fatal(err)
	}
	return tun
}

// asNobody are the words that run the words after them as a user without any
// right.
var asNobody = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"}

// execWords run a command by exec as nobody.
func (tun *tunnel) execWords(command ...string) []string {
	words := append([]string(nil), asNobody...)
	words = append(words, nobodyBinary, "exec", "--exit", tun.key, "--relay", world.RelayURL)
	return append(words, command...)
}

// exec runs a command by exec, as nobody, to its end.
func (tun *tunnel) exec(command ...string) netlab.Result {
	tun.t.Helper()
	words := tun.execWords(command...)
	return tun.runAny(words[0], "", words[1:]...)
}

// startExec is exec that does not wait, and has no terminal.
func (tun *tunnel) startExec(opts netlab.CommandOptions, command ...string) *netlab.Process {
	tun.t.Helper()
	words := append([]string{"setsid"}, tun.execWords(command...)...)
	p, err := tun.Client.Start(opts, needProgram(tun.t, words[0]), words[1:]...)
	return tun.started("exec", p, err)
}

// ends waits for a process and checks its exit code.
func (tun *tunnel) ends(p *netlab.Process, want int) {
	tun.t.Helper()
	code := 0
	err := p.Wait(tun.ctx)
	if exit := (interface{ ExitCode() int })(nil); errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	if err != nil || code != want {
		tun.t.Errorf("exec ended with code %d, %v, want %d", code, err, want)
	}
}

// leak check 46: as user 65534, without capabilities
func TestExecAsNobody(t *testing.T) {
	const mark = "probe-of-exec"
	tun := execWorld(t)
	before := tun.snapshot()
	end := tun.watch(mark)
	for _, c := range []struct {
		name    string
		command []string
		want    string
	}{
		{"a name", []string{"curl", "-sS", "--max-time", "30", "http://" + world.WebName + "/?" + mark}, "hello from the web"},
		{"IPv4", []string{"curl", "-sS", "--max-time", "30", "http://" + world.WebIP + "/?" + mark}, "hello from the web"},
		{"IPv6", []string{"curl", "-sS", "--max-time", "30", "http://[" + world.WebIP6 + "]/?" + mark}, "hello from the web"},
		{"the exit itself", []string{"curl", "-sS", "--max-time", "30", "http://" + tun.key + ".nostr/"}, "hello from " + world.ServiceText},
		{"dig", []string{"dig", "+short", "+time=10", "+tries=2", world.WebName, "AAAA"}, world.WebIP6},
		{"dig at a server", []string{"dig", "+short", "+time=10", "+tries=2", "@" + world.RouterIP, world.WebName}, world.WebIP},
		{"getent", []string{"getent", "ahostsv4", world.WebName}, world.WebIP},
		{"ping", []string{"ping", "-n", "-c", "1", "-W", "20", world.WebIP}, " 0% packet loss"},
		{"who", []string{"id"}, "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"},
		{"rights", []string{"grep", "-E", "^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)", "/proc/self/status"},
			"CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1"},
		{"devices", []string{"sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort"}, "lo\nnws0"},
		{"processes", []string{"sh", "-c", "cd /proc; set -- [0-9]*; echo $1 $#"}, "1 2"},
		{"descriptors", []string{"sh", "-c", "ls -l /proc/self/fd | grep -cE 'socket|net/tun'; true"}, "0"},
		{"resolver", []string{"grep", "-v", "^#", "/etc/resolv.conf"}, "nameserver 198.18.0.2\nnameserver fd6e:7773:7670::2"},
		{"arguments", []string{"printf", "%s,", "--exit", "-h", "--help", "--", "a b", ""}, "--exit,-h,--help,--,a b,,"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tun := tun.with(t)
			if res := tun.exec(c.command...); res.Code != 0 || !strings.Contains(strings.TrimSpace(res.Stdout), c.want) {
				t.Errorf("code %d, output %q, want %q", res.Code, res.Output, c.want)
			}
		})
	}
	if strange, marked := end(); marked > 0 || len(strange) > 0 {
		t.Errorf("%d marked packets on the wire; not of the relay: %s", marked, strings.Join(strange, "\n"))
	}
	tun.restored(before)
}

// leak check 48: exit codes
func TestExecExitCodes(t *testing.T) {
	tun := execWorld(t)
	for _, c := range []struct {
		name    string
		command []string
		code    int
		want    string
	}{
		{"its own", []string{"sh", "-c", "exit 77"}, 77, ""},
		{"a signal", []string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		{"not found", []string{"no-such-program"}, 127, "no-such-program"},
		{"not a program", []string{"/etc/passwd"}, 126, "/etc/passwd"},
		{"not of this machine", []string{nobodyDir + "/text"}, 126, "exec format error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tun := tun.with(t)
			if err := tun.Client.WriteFile(nobodyDir+"/text", []byte("\x7fnone")); err != nil {
				t.Fatal(err)
			}
			tun.run("chmod", "755", nobodyDir+"/text")
			if res := tun.exec(c.command...); res.Code != c.code || !strings.Contains(res.Output, c.want) {
				t.Errorf("code %d, want %d; output %q", res.Code, c.code, res.Output)
			}
		})
	}
	// Its own failures are told apart.
	res := tun.runAny(asNobody[0], "", append(append([]string(nil), asNobody[1:]...), nobodyBinary, "exec", "--exit", tun.key, "true")...)
	if res.Code != 125 || !strings.Contains(res.Output, "no relay is known") {
		t.Errorf("without a relay: code %d, output %q", res.Code, res.Output)
	}
}

// A command of root's is without rights as well.
func TestExecAsRoot(t *testing.T) {
	tun := execWorld(t)
	before := tun.snapshot()
	res, err := tun.Run(tun.ctx, tun.Client, "exec", "--exit", tun.key, "--relay", world.RelayURL,
		"sh", "-c", "id -u; grep CapEff /proc/self/status; curl -sS --max-time 30 http://"+world.WebName+"/")
	want := "0\nCapEff:\t0000000000000000\nhello from the web"
	if err != nil || res.Code != 0 || strings.TrimSpace(res.Stdout) != want {
		t.Errorf("code %d, %v, output %q", res.Code, err, res.Output)
	}
	tun.restored(before)
}

// The machine's own services, and whoever would look names up or connect on a
// command's behalf, are out of its reach.
//
// leak check 47: no way to the host
func TestExecReachesNobodyOutside(t *testing.T) {
	tun := execWorld(t)
	sockets := []string{
		"/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/dbus/system_bus_socket",
		"/run/avahi-daemon/socket", "/run/user/65534/bus", "/run/user/65534/systemd/private", "/run/docker.sock",
		nobodyDir + "/session bus",
	}
	for _, path := range sockets {
		tun.serveUNIX(path)
	}
	const port = "8099"
	if err := tun.ServeHTTP(tun.Client, net.JoinHostPort("127.0.0.1", port), world.Handler("this machine")); err != nil {
		t.Fatal(err)
	}
	// As systemd-resolved would have it.
	err := tun.Client.Do(func() error {
		const stub = "/run/systemd/resolve/stub-resolv.conf"
		return errors.Join(os.WriteFile(stub, []byte("nameserver "+world.RouterIP+"\n"), 0o644),
			os.Remove("/etc/resolv.conf"), os.Symlink("../"+stub, "/etc/resolv.conf"),
			os.WriteFile("/etc/nsswitch.conf", []byte("passwd: files\nhosts: resolve [!UNAVAIL=return] files dns\nnetworks: files\n"), 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
	look := fmt.Sprintf(`for s in %s '%s'; do [ -S "$s" ] && echo "$s"; done
grep hosts /etc/nsswitch.conf
cat /etc/hostname
curl -sS --max-time 10 http://127.0.0.1:%s/
exit 0`, strings.Join(sockets[:len(sockets)-1], " "), sockets[len(sockets)-1], port)
	words := []string{"env", "XDG_RUNTIME_DIR=/run/user/65534", "DBUS_SESSION_BUS_ADDRESS=unix:path=" + nobodyDir + "/session%20bus,guid=00"}

	outside := tun.run(words[0], append(words[1:], "sh", "-c", look)...)
	for _, want := range append(sockets, "resolve [!UNAVAIL=return]", "client", "hello from this machine") {
		if !strings.Contains(outside, want) {
			t.Fatalf("outside, the judge does not see %q:\n%s", want, outside)
		}
	}
	before := tun.snapshot()
	res := tun.runAny(words[0], "", append(words[1:], tun.execWords("sh", "-c", look)...)...)
	if res.Code != 0 || res.Stdout != "hosts: files dns\nclient\n" || !strings.Contains(res.Output, "curl: (7)") {
		t.Errorf("inside, code %d:\n%s", res.Code, res.Output)
	}
	tun.restored(before)
}

// unixServer hears what is said to a socket with a path, and never answers.
type unixServer struct {
	tun   *tunnel
	path  string
	heard chan string // each connection's first words, in their order
}

func (tun *tunnel) serveUNIX(path string) *unixServer {
	tun.t.Helper()
	var l net.Listener
	err := tun.Client.Do(func() (err error) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if l, err = net.Listen("unix", path); err != nil {
			return err
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false) // it would be in another mount namespace
		return os.Chmod(path, 0o666)
	})
	if err != nil {
		tun.t.Fatal(err)
	}
	s := &unixServer{tun: tun, path: path, heard: make(chan string, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			words := make([]byte, 1024)
			n, _ := c.Read(words) // one that says nothing says nothing
			c.Close()
			select {
			case s.heard <- string(words[:n]):
			default: // more than any test has to say
			}
		}
	}()
	tun.t.Cleanup(func() { l.Close(); <-ended })
	return s
}

// soFar returns what was said until now.
func (s *unixServer) soFar() (list []string) {
	s.tun.t.Helper()
	const last = "that is all"
	err := s.tun.Client.Do(func() error {
		c, err := net.Dial("unix", s.path)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(last))
		return err
	})
	if err != nil {
		s.tun.t.Fatal(err)
	}
	for {
		select {
		case words := <-s.heard:
			if words == last {
				return list
			}
			list = append(list, words)
		case <-s.tun.ctx.Done():
			s.tun.t.Fatal("the socket hears nothing")
		}
	}
}

// libc asks a name service daemon before all that nsswitch.conf says, and that
// one looks names up outside.
//
// leak check 47: no daemon is asked for names
func TestExecAsksNoDaemonForNames(t *testing.T) {
	tun := execWorld(t)
	daemon := tun.serveUNIX("/run/nscd/socket")
	askedForHosts := func() bool {
		return slices.ContainsFunc(daemon.soFar(), func(words string) bool {
			return strings.Contains(words, world.WebName) || strings.Contains(words, "hosts")
		})
	}
	end := tun.watch(world.WebName)
	res := tun.exec("getent", "ahostsv4", world.WebName)
	if res.Code != 0 || !strings.Contains(res.Stdout, world.WebIP) {
		t.Errorf("code %d, output %q", res.Code, res.Output)
	}
	if strange, marked := end(); len(strange) > 0 || marked > 0 {
		t.Errorf("%d marked packets on the wire; not of the relay: %s", marked, strings.Join(strange, "\n"))
	}
	if askedForHosts() || len(tun.Uplink.Asked()) > 0 {
		t.Errorf("from inside, somebody outside was asked: %q", tun.Uplink.Asked())
	}
	tun.runAny("getent", "", "ahostsv4", world.WebName)
	if !askedForHosts() || len(tun.Uplink.Asked()) == 0 {
		t.Error("the judge sees no look-up outside either")
	}
}
