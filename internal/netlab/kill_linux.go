package netlab

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// killAll kills every process that is in the host's network namespace, those
// too that left their parent, and waits until they are gone.
func (h *Host) killAll() error {
	own, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d", h.ns.net.Fd()))
	if err != nil {
		return err
	}
	// A process may be forking while it is looked for, so look until none is left.
	for range 10 {
		found, err := killIn(own)
		if err != nil || !found {
			return err
		}
	}
	return fmt.Errorf("netlab: host %s: processes keep appearing", h.name)
}

func killIn(own os.FileInfo) (found bool, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		ns, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil && os.SameFile(ns, own) {
			found = true
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(outputPatience.Milliseconds()))
		}
		unix.Close(fd)
	}
	return found, nil
}
