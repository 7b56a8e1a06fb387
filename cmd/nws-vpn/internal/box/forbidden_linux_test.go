package box

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	type settings = map[string]string
	for _, test := range []struct {
		name string
		at   step
		err  syscall.Errno
		set  settings
		want string // part of the reason; "" for none
	}{
		{"no user namespaces left", stepNamespaces, unix.ENOSPC, settings{"sys/user/max_user_namespaces": "0"}, "user.max_user_namespaces=0"},
		{"no network namespaces left", stepNamespaces, unix.ENOSPC, settings{"sys/user/max_user_namespaces": "7", "sys/user/max_net_namespaces": "0"}, "user.max_net_namespaces=0"},
		{"all in use", stepNamespaces, unix.ENOSPC, settings{"sys/user/max_user_namespaces": "7"}, "as many namespaces"},
		{"nested too deeply", stepNamespaces, unix.EUSERS, nil, "as many namespaces"},
		{"Debian's switch", stepNamespaces, unix.EPERM, settings{userClone: "0", "self/status": "Seccomp:\t2\n"}, "kernel.unprivileged_userns_clone=1"},
		{"AppArmor", stepNamespaces, unix.EACCES, settings{userClone: "1", appArmor: "1"}, "kernel.apparmor_restrict_unprivileged_userns"},
		{"a container", stepNamespaces, unix.EPERM, settings{"self/status": "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"}, "seccomp"},
		{"something else", stepNamespaces, unix.EPERM, settings{"self/status": "Seccomp:\t0\n"}, "security module"},
		{"an old kernel", stepNamespaces, unix.EINVAL, nil, "CONFIG_USER_NS"},
		{"out of memory", stepNamespaces, unix.ENOMEM, nil, ""},
		{"AppArmor lets the namespace be made", stepFiles, unix.EACCES, settings{appArmor: "1"}, "kernel.apparmor_restrict_unprivileged_userns"},
		{"and the device be opened", stepDevice, unix.EPERM, settings{appArmor: "1"}, "kernel.apparmor_restrict_unprivileged_userns"},
		{"no device", stepDevice, unix.ENOENT, settings{appArmor: "1"}, "modprobe tun"},
		{"no driver", stepDevice, unix.ENODEV, nil, "modprobe tun"},
		{"the device's mode", stepDevice, unix.EACCES, nil, "chmod 0666 /dev/net/tun"},
		{"masked /proc", stepProc, unix.EPERM, nil, "systempaths=unconfined"},
		{"a network error", stepNetwork, unix.EEXIST, settings{appArmor: "1"}, ""},
		{"files", stepFiles, unix.EPERM, nil, ""},
	} {
		got := explain(test.at, test.err, func(name string) string { return test.set[name] })
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want something about %q", test.name, got, test.want)
		}
	}
}

// An error is still what it was after it has passed between processes.
func TestFailurePasses(t *testing.T) {
	near, far := testPipes(t)
	sent := newFailure(stepDevice, &fs.PathError{Op: "open", Path: "/dev/net/tun", Err: unix.ENOENT})
	if err := near.send(report{Failed: sent}, nil); err != nil {
		t.Fatal(err)
	}
	var r report
	if _, err := far.receive(&r); err != nil {
		t.Fatal(err)
	}
	var forbidden *ForbiddenError
	err := explained(r.Failed)
	if !errors.As(err, &forbidden) || !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	// One that has no reason says what has happened all the same.
	if err := explained(newFailure(stepNetwork, errors.New("odd"))); errors.As(err, &forbidden) && forbidden.Reason != "" && err.Error() == forbidden.Error() || !strings.Contains(err.Error(), "odd") {
		t.Errorf("got %v", err)
	}
}
