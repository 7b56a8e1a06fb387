package box

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// explained says what a failure comes from, where that is known.
func explained(f *failure) error {
	if reason := explain(f.Step, f.Errno, readSetting); reason != "" {
		return &ForbiddenError{Reason: reason, Err: fmt.Errorf("%s: %w", f.Step, f)}
	}
	return fmt.Errorf("box: %s: %w", f.Step, f)
}

// readSetting returns what the kernel says of itself below /proc, "" for what it
// does not know.
func readSetting(name string) string {
	text, err := os.ReadFile("/proc/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

const (
	appArmor  = "sys/kernel/apparmor_restrict_unprivileged_userns"
	userClone = "sys/kernel/unprivileged_userns_clone"
)

// explain names the setting that makes a step fail with an error, and the
// remedy; "" when it is not known. It is pure: setting reads below /proc.
func explain(at step, errno syscall.Errno, setting func(name string) string) string {
	denied := errno == unix.EPERM || errno == unix.EACCES
	switch {
	case at == stepNamespaces:
		return explainNamespaces(errno, setting)
	case at == stepDevice && errno == unix.ENOENT:
		return "/dev/net/tun is missing: load the driver with `modprobe tun` (as root), or start the container with --device /dev/net/tun"
	case at == stepDevice && (errno == unix.ENODEV || errno == unix.ENXIO):
		return "the TUN driver is not there: load it with `modprobe tun` (as root)"
	case denied && setting(appArmor) == "1":
		return appArmorReason
	case at == stepDevice && denied:
		return "/dev/net/tun is not open to you: `chmod 0666 /dev/net/tun` (as root) gives it the mode that most systems ship it with, and a container needs --device /dev/net/tun"
	case at == stepProc && denied:
		return "parts of /proc are masked, as containers do: start the container with --security-opt systempaths=unconfined"
	}
	return ""
}

const appArmorReason = "the setting kernel.apparmor_restrict_unprivileged_userns=1 forbids it to programs without an AppArmor profile: run it with sudo, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0` (as root)"

func explainNamespaces(errno syscall.Errno, setting func(string) string) string {
	switch errno {
	case unix.ENOSPC, unix.EUSERS:
		for _, kind := range []string{"user", "net", "mnt", "pid"} {
			name := "max_" + kind + "_namespaces"
			if setting("sys/user/"+name) == "0" {
				return fmt.Sprintf("the setting user.%s=0 forbids it: `sysctl user.%s=10000` (as root), or run it with sudo", name, name)
			}
		}
		return "there are as many namespaces as the settings user.max_user_namespaces, max_net_namespaces, max_mnt_namespaces and max_pid_namespaces allow"
	case unix.EINVAL, unix.ENOSYS:
		return "this kernel has no user namespaces (CONFIG_USER_NS): run it with sudo"
	case unix.EPERM, unix.EACCES:
		switch {
		case setting(userClone) == "0":
			return "the setting kernel.unprivileged_userns_clone=0 forbids it: `sysctl kernel.unprivileged_userns_clone=1` (as root), or run it with sudo"
		case setting(appArmor) == "1":
			return appArmorReason
		case seccomp(setting("self/status")):
			return "a seccomp filter forbids it, as containers have: start the container with --security-opt seccomp=unconfined, or with --cap-add SYS_ADMIN,NET_ADMIN as root"
		}
		return "a security module of this machine, or a chroot, forbids user namespaces: run it with sudo"
	}
	return ""
}

// seccomp reports whether /proc/self/status tells of a filter.
func seccomp(status string) bool {
	for line := range strings.Lines(status) {
		if mode, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(mode) != "0"
		}
	}
	return false
}
