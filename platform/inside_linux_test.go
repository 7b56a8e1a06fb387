package platform

import (
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enterEmpty moves the test into a network namespace with nothing in it.
func enterEmpty(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNET))
}

func insideConfig() Inside {
	return Inside{Device: "nws0", MTU: 1400, Addresses: testConfig().Addresses, Group: 77}
}

func TestConfigureInside(t *testing.T) {
	enterEmpty(t)
	openTUN(t, "nws0")
	must(t, ConfigureInside(insideConfig()))
	must(t, ConfigureInside(insideConfig())) // again is as good

	for to, from := range map[string]string{"203.0.113.80": "198.18.0.1", "2001:db8::80": "fd6e:7773:7670::1"} {
		routes, err := netlink.RouteGet(netip.MustParseAddr(to).AsSlice())
		must(t, err)
		link, err := netlink.LinkByIndex(routes[0].LinkIndex)
		must(t, err)
		if a := link.Attrs(); a.Name != "nws0" || a.MTU != 1400 || routes[0].Src.String() != from {
			t.Errorf("to %s by %s with MTU %d from %s", to, a.Name, a.MTU, routes[0].Src)
		}
	}
	for _, own := range []string{"127.0.0.1", "::1"} {
		routes, err := netlink.RouteGet(netip.MustParseAddr(own).AsSlice())
		must(t, err)
		if routes[0].Type != unix.RTN_LOCAL {
			t.Errorf("%s has a route of type %d", own, routes[0].Type)
		}
	}
	text, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	must(t, err)
	if strings.Contains(string(text), "fe80") {
		t.Errorf("the device has a link-local address:\n%s", text)
	}
	text, err = os.ReadFile(sysctlRoot + "ipv4/ping_group_range")
	must(t, err)
	if got := strings.Fields(string(text)); len(got) != 2 || got[0] != "77" || got[1] != "77" {
		t.Errorf("groups that may ping: %s", text)
	}
}

// The machine may have no IPv6, or have it turned off for new devices.
func TestConfigureInsideWithIPv6Off(t *testing.T) {
	enterEmpty(t)
	must(t, writeSysctl("ipv6/conf/default/disable_ipv6", 1))
	openTUN(t, "nws0")
	must(t, ConfigureInside(insideConfig()))
	if _, err := netlink.RouteGet(netip.MustParseAddr("2001:db8::80").AsSlice()); err != nil {
		t.Errorf("IPv6 by the tunnel: %v", err)
	}
}

func TestConfigureInsideRefuses(t *testing.T) {
	enterEmpty(t)
	for name, device := range map[string]string{"no device": "nws0", "no name": "", "a path": "../x"} {
		cfg := insideConfig()
		cfg.Device = device
		if err := ConfigureInside(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	openTUN(t, "nws0")
	cfg := insideConfig()
	cfg.MTU = 70000
	if err := ConfigureInside(cfg); err == nil {
		t.Error("an MTU of 70000 was accepted")
	}
}
