package netlab

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A User is whom code in a host runs as: a user and group id without other
// groups, and the capabilities (unix.CAP_…) that it has nevertheless. Nobody is
// a User with the zero value of Capabilities and an ID that is not 0.
type User struct {
	ID           int
	Capabilities []int
}

// DoAs is Do as another user. The sockets that f makes are that user's, as far
// as the kernel is concerned.
func (h *Host) DoAs(who User, f func() error) error {
	return h.Do(func() error {
		if err := become(who); err != nil {
			return fmt.Errorf("netlab: become user %d: %w", who.ID, err)
		}
		return f()
	})
}

// become changes the calling thread only, which must be locked and must not
// outlive the caller's function: the package syscall would change all threads.
func become(who User) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, c := range who.Capabilities {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep the capabilities: %w", err)
	}
	id := uintptr(who.ID)
	for _, call := range []struct {
		name          string
		trap, a, b, c uintptr
	}{
		{"setgroups", unix.SYS_SETGROUPS, 0, 0, 0},
		{"setresgid", unix.SYS_SETRESGID, id, id, id},
		{"setresuid", unix.SYS_SETRESUID, id, id, id},
		{"capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0},
	} {
		if _, _, errno := unix.RawSyscall(call.trap, call.a, call.b, call.c); errno != 0 {
			return fmt.Errorf("%s: %w", call.name, errno)
		}
	}
	runtime.KeepAlive(&hdr)
	runtime.KeepAlive(&data)
	return nil
}
