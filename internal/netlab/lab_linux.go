package netlab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// A Lab owns hosts and takes them down together. Its methods may be called
// concurrently.
type Lab struct {
	mu     sync.Mutex
	hosts  []*Host
	closed bool
}

// New returns an empty lab.
func New() *Lab { return &Lab{} }

// Host makes a new host: namespaces of its own, the loopback up, an empty
// /run, and an /etc whose files are the machine's except resolv.conf (empty),
// hosts, hostname and nsswitch.conf. The name is for messages and /etc/hostname.
func (l *Lab) Host(name string) (*Host, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("netlab: network namespaces need root: run it with sudo")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("netlab: host %s: the lab is closed", name)
	}
	h, err := newHost(name)
	if err != nil {
		return nil, fmt.Errorf("netlab: host %s: %w", name, err)
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// Close kills every process left in the lab, waits for them, and gives all
// namespaces back. A second call does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for _, h := range slices.Backward(l.hosts) {
		errs = append(errs, h.close())
	}
	l.hosts = nil
	return errors.Join(errs...)
}
