package platform

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// fakeService tells the test program that it is to be a service on the bus:
// which one, and how it behaves, with a space between.
const fakeService = "NWS_VPN_TEST_FAKE"

// errFake stands for whatever a service says when it refuses.
var errFake = dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"the fake refuses"})

// startBus runs a bus of the test's own where the system's is, and the services
// on it. They end with the test.
func startBus(t *testing.T, services ...string) {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs dbus-daemon: a bus of its own (`make tools` installs it)")
	}
	must(t, os.MkdirAll("/run/dbus", 0o755))
	must(t, os.WriteFile("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)) // the daemon looks itself up
	const config = "/run/dbus/test.conf"
	must(t, os.WriteFile(config, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
<listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth>
<policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy>
</busconfig>
`), 0o644))
	startReady(t, exec.Command(daemon, "--nofork", "--nopidfile", "--print-address", "--config-file="+config))
	for _, s := range services {
		startService(t, s)
	}
}

// startService runs a fake service in the namespaces of the calling thread.
func startService(t *testing.T, service string) (stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fakeService+"="+service)
	return startReady(t, cmd)
}

// startReady starts a program that prints a line when it is ready.
func startReady(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%s is not ready: %q, %v", cmd.Path, line, err)
	}
	return stop
}

// beService is the process that startService starts. It lives until it is
// killed.
func beService(service string) error {
	// A test that hangs for want of a service is worse than one that fails.
	failed := time.AfterFunc(30*time.Second, func() { os.Exit(1) })
	conn, err := dbus.Connect("unix:path=/run/dbus/system_bus_socket")
	if err != nil {
		return err
	}
	defer conn.Close()
	kind, behaviour, _ := strings.Cut(service, " ")
	name := resolvedName
	if kind == "nm" {
		name = nmName
		err = exportNM(conn, behaviour)
	} else {
		err = exportResolved(conn, behaviour)
	}
	if err != nil {
		return err
	}
	if r, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("own %s: %v, %w", name, r, err)
	}
	failed.Stop()
	fmt.Println("ready")
	<-conn.Context().Done()
	return nil
}

// props answers for the properties of an object.
type props struct {
	get func(property string) any // nil for one that it has not
	set func(property string, v dbus.Variant) *dbus.Error
}

func (p props) Get(_, property string) (dbus.Variant, *dbus.Error) {
	v := p.get(property)
	if v == nil {
		return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", nil)
	}
	return dbus.MakeVariant(v), nil
}

func (p props) Set(_, property string, v dbus.Variant) *dbus.Error {
	if p.set == nil {
		return errFake
	}
	return p.set(property, v)
}

func exportProps(conn *dbus.Conn, path dbus.ObjectPath, p props) error {
	return conn.Export(p, path, "org.freedesktop.DBus.Properties")
}

// putFake writes a file that a service or a program keeps, so that the test's
// snapshots compare it: no text removes it, and it has no time of its own.
func putFake(path, text string) {
	if text == "" {
		_ = os.Remove(path)
		return
	}
	_ = os.MkdirAll(filepath.Dir(path), 0o755)
	_ = os.WriteFile(path+".new", []byte(text), 0o644)
	_ = os.Chtimes(path+".new", time.Unix(1, 0), time.Unix(1, 0))
	_ = os.Rename(path+".new", path)
}

// fakeResolved is systemd-resolved as far as it is used. What it was told of the
// links is in /run/resolved.links, one a line.
type fakeResolved struct {
	conn      *dbus.Conn
	behaviour string // "", "refuses", "hangs"

	mu     sync.Mutex
	uplink string
	domain string // of the uplink
	links  map[int32]*fakeLink
}

type fakeLink struct {
	dns      []linkServer
	domains  []linkDomain
	settings map[string]string
}

func exportResolved(conn *dbus.Conn, behaviour string) error {
	r := &fakeResolved{conn: conn, behaviour: behaviour, uplink: "192.0.2.53", domain: "lan", links: make(map[int32]*fakeLink)}
	methods := map[string]any{
		"SetLinkDNS":          r.setDNS,
		"SetLinkDomains":      r.setDomains,
		"SetLinkDefaultRoute": func(i int32, v bool) *dbus.Error { return r.set(i, "DefaultRoute", fmt.Sprint(v)) },
		"SetLinkDNSSEC":       func(i int32, v string) *dbus.Error { return r.set(i, "DNSSEC", v) },
		"SetLinkDNSOverTLS":   func(i int32, v string) *dbus.Error { return r.set(i, "DNSOverTLS", v) },
		"SetLinkLLMNR":        func(i int32, v string) *dbus.Error { return r.set(i, "LLMNR", v) },
		"SetLinkMulticastDNS": func(i int32, v string) *dbus.Error { return r.set(i, "MulticastDNS", v) },
		"RevertLink":          r.revert,
		"FlushCaches":         func() *dbus.Error { return nil },
		"GetLink":             r.getLink,
	}
	if behaviour == "old" {
		delete(methods, "SetLinkDNSOverTLS")
		delete(methods, "SetLinkDefaultRoute")
	}
	if err := conn.ExportMethodTable(methods, resolvedPath, resolvedManager); err != nil {
		return err
	}
	if err := conn.ExportMethodTable(map[string]any{"Uplink": r.roam}, resolvedPath, "test.Fake"); err != nil {
		return err
	}
	r.writeLocked()
	return exportProps(conn, resolvedPath, props{get: r.property})
}

func (r *fakeResolved) change(index int32, f func(*fakeLink)) *dbus.Error {
	if r.behaviour == "refuses" {
		return errFake
	}
	if r.behaviour == "hangs" {
		select {}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.links[index] == nil {
		r.links[index] = &fakeLink{settings: make(map[string]string)}
	}
	f(r.links[index])
	r.writeLocked()
	return nil
}

func (r *fakeResolved) set(index int32, key, value string) *dbus.Error {
	return r.change(index, func(l *fakeLink) { l.settings[key] = value })
}

func (r *fakeResolved) setDNS(index int32, dns []linkServer) *dbus.Error {
	return r.change(index, func(l *fakeLink) { l.dns = dns })
}

func (r *fakeResolved) setDomains(index int32, domains []linkDomain) *dbus.Error {
	return r.change(index, func(l *fakeLink) { l.domains = domains })
}

func (r *fakeResolved) revert(index int32) *dbus.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.links[index] == nil {
		return dbus.NewError(errNoSuchLink, nil)
	}
	delete(r.links, index)
	r.writeLocked()
	return nil
}

func (r *fakeResolved) roam(uplink string) *dbus.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uplink, r.domain = uplink, "Roamed.example"
	r.writeLocked()
	return nil
}

// writeLocked writes what the snapshots see, and the list of servers.
func (r *fakeResolved) writeLocked() {
	var text strings.Builder
	for i, l := range r.links {
		if _, err := net.InterfaceByIndex(int(i)); err != nil {
			continue // forgotten with its link
		}
		fmt.Fprintf(&text, "%d %v %v %v\n", i, l.dns, l.domains, l.settings)
	}
	putFake("/run/resolved.links", text.String())
	var list strings.Builder
	fmt.Fprintf(&list, "nameserver %s\n", r.uplink)
	for _, l := range r.links {
		for _, s := range l.dns {
			a, _ := netip.AddrFromSlice(s.Address)
			fmt.Fprintf(&list, "nameserver %s\n", a)
		}
	}
	putFake("/run/systemd/resolve/resolv.conf", list.String())
}

func (r *fakeResolved) getLink(index int32) (dbus.ObjectPath, *dbus.Error) {
	path := dbus.ObjectPath(fmt.Sprintf("%s/link/_%d", resolvedPath, index))
	err := exportProps(r.conn, path, props{get: func(property string) any {
		r.mu.Lock()
		defer r.mu.Unlock()
		l := r.links[index]
		if l == nil {
			l = new(fakeLink)
		}
		switch property {
		case "DNS":
			return append([]linkServer{}, l.dns...)
		case "Domains":
			return append([]linkDomain{}, l.domains...)
		}
		if v, ok := l.settings[property]; ok {
			return v
		}
		return nil
	}})
	if err != nil {
		return "", errFake
	}
	return path, nil
}

func (r *fakeResolved) property(property string) any {
	if r.behaviour == "hangs" {
		select {}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	uplink := netip.MustParseAddr(r.uplink)
	eth0 := indexOf("eth0")
	switch property {
	case "DNS":
		list := []managerServer{{0, unix.AF_INET, []byte{9, 9, 9, 9}}}
		for i, l := range r.links {
			for _, s := range l.dns {
				list = append(list, managerServer{i, s.Family, s.Address})
			}
		}
		return append(list, managerServer{eth0, unix.AF_INET, uplink.AsSlice()},
			managerServer{eth0, unix.AF_INET6, netip.MustParseAddr("fe80::53").AsSlice()})
	case "Domains":
		list := []managerDomain{{eth0, r.domain, false}}
		for i, l := range r.links {
			for _, d := range l.domains {
				list = append(list, managerDomain{i, d.Domain, d.RoutingOnly})
			}
		}
		if r.behaviour == "catches" {
			list = append(list, managerDomain{eth0, ".", true})
		}
		return list
	}
	return nil
}
