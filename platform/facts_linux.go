package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ipv6State says what can be done about IPv6 on this machine.
type ipv6State int

const (
	ipv6Missing ipv6State = iota // not in the kernel: nothing to carry or to stop
	ipv6Off                      // switched off for the device: stopped, not carried
	ipv6On
)

// facts is what the machine is like before a Set, as far as the plan depends on
// it. Maps by family have 4 and, unless IPv6 is missing, 6.
type facts struct {
	link         netlink.LinkAttrs
	ipv6         ipv6State
	sysctls      map[string]int
	strict       bool // some reverse path check is strict
	rules        map[int][]netlink.Rule
	routes       map[int][]netlink.Route // of all tables
	addrs        map[int][]netlink.Addr  // of all interfaces
	names        map[int]string          // of interfaces, by index
	bridges      []string
	localBridges []string  // without an interface to the outside
	inside       []onLink  // networks of containers
	lan          []onLink  // networks on a link that are private
	sessions     []session // connections from outside
	cgroup       *cgroup   // that Config.BypassCgroup names
	resolv       savedFile
	resolvErr    error
	dns          dnsProbe
}

func (f *facts) families() []int {
	if f.ipv6 == ipv6Missing {
		return []int{4}
	}
	return []int{4, 6}
}

// gather reads the facts; it changes nothing.
func gather(e *env, cfg Config) (*facts, error) {
	f := &facts{
		sysctls: make(map[string]int),
		rules:   make(map[int][]netlink.Rule),
		routes:  make(map[int][]netlink.Route),
		addrs:   make(map[int][]netlink.Addr),
		names:   make(map[int]string),
	}
	if err := f.gatherLinks(cfg.Device); err != nil {
		return nil, err
	}
	if err := f.gatherSysctls(cfg.Device); err != nil {
		return nil, err
	}
	var err error
	if f.cgroup, err = findCgroup(cfg.BypassCgroup); err != nil {
		return nil, err
	}
	for _, family := range f.families() {
		if f.rules[family], err = listRules(family); err != nil {
			return nil, err
		}
		if f.routes[family], err = listRoutes(family, 0); err != nil {
			return nil, err
		}
		if f.addrs[family], err = listAddrs(family); err != nil {
			return nil, err
		}
	}
	if cfg.AllowLAN {
		f.lan = f.privateLinks(func(device string) bool { return device != cfg.Device })
	}
	f.inside = f.containers()
	if cfg.Filter == FilterOn && !cfg.RefuseInbound {
		f.sessions = sessionsFromOutside(f.families())
	}
	f.gatherDNS(e, cfg)
	return f, nil
}

func (f *facts) gatherLinks(device string) error {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list the network devices: %w", err)
	}
	found := false
	outside := make(map[int]bool) // bridges with a port that is no container's
	for _, l := range links {
		if l.Type() != "veth" && l.Type() != "tuntap" {
			outside[l.Attrs().MasterIndex] = true
		}
	}
	for _, l := range links {
		f.names[l.Attrs().Index] = l.Attrs().Name
		if l.Type() == "bridge" && len(f.bridges) < maxBridges {
			f.bridges = append(f.bridges, l.Attrs().Name)
			if !outside[l.Attrs().Index] {
				f.localBridges = append(f.localBridges, l.Attrs().Name)
			}
		}
		if l.Attrs().Name != device {
			continue
		}
		if l.Type() != "tuntap" && l.Type() != "tun" {
			return fmt.Errorf("%s is a device of type %q, not a TUN: give the tunnel a name of its own", device, l.Type())
		}
		f.link, found = *l.Attrs(), true
	}
	if !found && device != "" {
		return &DeviceGoneError{Device: device}
	}
	slices.Sort(f.bridges)
	return nil
}

func (f *facts) gatherSysctls(device string) error {
	for _, name := range []string{srcValidMark, arpIgnore, rpFilter, markAccepted, markReflected4, markReflected6} {
		v, err := readSysctl(name)
		if errors.Is(err, fs.ErrNotExist) && name == markReflected6 {
			continue // a machine without IPv6
		}
		if err != nil {
			return fmt.Errorf("read a setting of the kernel: %w: is /proc mounted?", err)
		}
		f.sysctls[name] = v
	}
	var err error
	if f.strict, err = strictReversePath(device); err != nil {
		return fmt.Errorf("read a setting of the kernel: %w", err)
	}
	if device == "" || f.link.Index == 0 {
		device = "default" // one that does not exist yet
	}
	off, err := readSysctl("ipv6/conf/" + device + "/disable_ipv6")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.ipv6 = ipv6Missing
		// A device whose MTU is too small for IPv6 has no IPv6 settings, but
		// the machine may have IPv6 to be stopped.
		if _, err := os.Stat(sysctlRoot + "ipv6/conf/all"); err == nil {
			f.ipv6 = ipv6Off
		}
		return nil
	case err != nil:
		return fmt.Errorf("read a setting of the kernel: %w", err)
	case off != 0:
		f.ipv6 = ipv6Off
	default:
		f.ipv6 = ipv6On
	}
	return nil
}

func isUp(a *netlink.LinkAttrs) bool { return a.Flags&net.FlagUp != 0 }

// checkMachine reports what is missing for a tunnel on this machine.
func checkMachine(e *env) error {
	if !hasNetAdmin() {
		return errors.New("platform: changing this machine's network needs CAP_NET_ADMIN: run as root")
	}
	f, err := os.OpenFile(e.tun, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("platform: %w: load the module with `modprobe tun`, or give the container the device with --device /dev/net/tun", err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("platform: %w: this kernel has no TUN driver (CONFIG_TUN)", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("platform: %w: the file's mode or the container's device rules forbid it: give the container the device with --device /dev/net/tun", err)
	}
	return fmt.Errorf("platform: %w", err)
}

// hasNetAdmin reports whether the calling thread has CAP_NET_ADMIN in effect.
func hasNetAdmin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}
