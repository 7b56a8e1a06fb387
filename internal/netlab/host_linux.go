package netlab

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Host is one machine of the lab. Its methods may be called concurrently,
// until the lab is closed.
type Host struct {
	name string
	ns   namespaces

	// keeper runs functions on the thread that made the namespaces. It starts
	// the host's commands, because they are to die when it ends.
	keeper chan func()
	stop   chan struct{} // closed to end the keeper
	ended  chan struct{} // closed when it is gone

	closing sync.Once
}

func newHost(name string) (*Host, error) {
	h := &Host{name: name, keeper: make(chan func()), stop: make(chan struct{}), ended: make(chan struct{})}
	ready := make(chan error, 1)
	onThread(func() {
		defer close(h.ended)
		guarded(h.setUp, func(err error) { ready <- err })
		for {
			select {
			case f := <-h.keeper:
				f()
			case <-h.stop:
				return
			}
		}
	})
	if err := <-ready; err != nil {
		close(h.stop)
		<-h.ended
		return nil, err
	}
	return h, nil
}

// setUp makes the namespaces, on the keeper's thread.
func (h *Host) setUp() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("new namespaces: %w (it needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN)", err)
	}
	if err := privateFiles(h.name); err != nil {
		return err
	}
	if err := skipAddressDetection(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set the loopback up: %w", err)
	}
	h.ns, err = currentNamespaces()
	return err
}

// skipAddressDetection makes IPv6 addresses usable at once, the link-local ones
// too: nobody here has the same, and the wait would be a second per link.
func skipAddressDetection() error {
	for _, which := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("turn off duplicate address detection: %w", err)
		}
	}
	return nil
}

// Do runs f on a thread inside the host and returns its error. Sockets that f
// makes, files that it opens by absolute path and netlink requests belong to
// the host; goroutines that it starts do not, nor may it start commands (see
// Start) or call t.Fatal. Many may run at once.
func (h *Host) Do(f func() error) error {
	done := make(chan error, 1)
	onThread(func() {
		guarded(func() error {
			if err := h.ns.enter(); err != nil {
				return fmt.Errorf("netlab: enter host %s: %w", h.name, err)
			}
			return f()
		}, func(err error) { done <- err })
	})
	return <-done
}

// onKeeper runs f on the host's lasting thread.
func (h *Host) onKeeper(f func() error) error {
	done := make(chan error, 1)
	select {
	case h.keeper <- func() { guarded(f, func(err error) { done <- err }) }:
		return <-done
	case <-h.ended:
		return errors.New("netlab: host " + h.name + " is closed")
	}
}

// ReadFile reads a file as the host sees it.
func (h *Host) ReadFile(path string) (data []byte, err error) {
	err = h.Do(func() error {
		data, err = os.ReadFile(path)
		return err
	})
	return data, err
}

// WriteFile writes a file as the host sees it, with mode 0644.
func (h *Host) WriteFile(path string, data []byte) error {
	return h.Do(func() error { return os.WriteFile(path, data, 0o644) })
}

// Sysctl sets one, named by its path below /proc/sys.
func (h *Host) Sysctl(path, value string) error {
	return h.WriteFile("/proc/sys/"+path, []byte(value))
}

func (h *Host) close() error {
	var err error
	h.closing.Do(func() {
		err = h.killAll()
		close(h.stop)
		<-h.ended
		h.ns.close()
	})
	return err
}
