package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Abilities reports what this machine, and the user who asks, can do for a
// tunnel. It changes nothing.
func Abilities() []Ability {
	list := []Ability{
		{Name: AbilityAdmin}, {Name: AbilityTUN, Missing: tunMissing("/dev/net/tun")}, nftAbility(),
		{Name: AbilityUser, Missing: userNamespacesMissing()}, {Name: AbilityGroup}, {Name: AbilityIPv6},
	}
	if !hasNetAdmin() {
		list[1].Unknown = list[1].Missing != "" && os.Geteuid() != 0 // root may open it
		list[0].Missing = "this user may not change the network (no CAP_NET_ADMIN): run as root"
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		list[4].Missing = "/sys/fs/cgroup is no cgroup2 file system: programs cannot be let past the tunnel one by one; boot with systemd.unified_cgroup_hierarchy=1"
	}
	if b, err := os.ReadFile(sysctlRoot + "ipv6/conf/all/disable_ipv6"); err != nil {
		list[5].Missing = "the kernel has no IPv6: only IPv4 goes through the tunnel, and there is no other"
	} else if strings.TrimSpace(string(b)) != "0" {
		list[5].Missing = "IPv6 is switched off (net.ipv6.conf.all.disable_ipv6): only IPv4 goes through the tunnel"
	}
	return list
}

// tunMissing says what is wrong with the device that makes TUNs, or "".
func tunMissing(path string) string {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		return ""
	}
	why := "the kernel has no TUN driver (CONFIG_TUN)"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = "load the module with `modprobe tun`, or give the container the device with --device /dev/net/tun"
	case errors.Is(err, fs.ErrPermission):
		why = "its mode or the container's device rules forbid it: run as root, or give the container the device with --device /dev/net/tun"
	}
	return fmt.Sprintf("cannot open %s (%v): %s", path, err, why)
}

// userNamespacesMissing says which setting keeps a plain user from making
// namespaces, or "".
func userNamespacesMissing() string {
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return "the kernel has no user namespaces (CONFIG_USER_NS): nws-vpn exec does not work"
	}
	for _, s := range []struct{ name, bad, remedy string }{
		{"user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"},
		{"kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for nws-vpn"},
	} {
		b, err := os.ReadFile("/proc/sys/" + s.name)
		if err == nil && strings.TrimSpace(string(b)) == s.bad {
			return fmt.Sprintf("%s is %s, which forbids them to plain users: nws-vpn exec needs root, or %s", strings.ReplaceAll(s.name, "/", "."), s.bad, s.remedy)
		}
	}
	return ""
}
