package exit

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// localLifetime is how long the list of the machine's networks is used before
// it is read again. Addresses come and go with leases and links, minutes
// apart at the fastest.
const localLifetime = 5 * time.Second

// localNets knows the machine's own addresses and the networks on its links.
// It is safe for concurrent use.
type localNets struct {
	read func() ([]netip.Prefix, error)
	log  *slog.Logger

	mu       sync.Mutex
	prefixes []netip.Prefix
	fresh    time.Time // until when
}

// newLocalNets reads the list for the first time: an exit that does not know
// its own networks must not start.
func newLocalNets(read func() ([]netip.Prefix, error), log *slog.Logger) (*localNets, error) {
	prefixes, err := read()
	if err != nil {
		return nil, fmt.Errorf("exit: read this machine's addresses: %w", err)
	}
	return &localNets{read: read, log: log, prefixes: prefixes, fresh: time.Now().Add(localLifetime)}, nil
}

func (l *localNets) contains(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.fresh) {
		l.fresh = now.Add(localLifetime)
		// What was read before is the best there is when reading fails.
		if prefixes, err := l.read(); err != nil {
			l.log.Warn("exit: could not read this machine's addresses again", "err", err)
		} else {
			l.prefixes = prefixes
		}
	}
	return containedIn(l.prefixes, a)
}

// interfacePrefixes lists what the machine's interfaces are configured with:
// an address and the network on its link, as one prefix.
func interfacePrefixes() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	prefixes := make([]netip.Prefix, 0, len(addrs))
	for _, addr := range addrs {
		ipNet, ok := addr.(*net.IPNet)
		if !ok {
			continue
		}
		a, ok := netip.AddrFromSlice(ipNet.IP)
		if !ok {
			continue
		}
		ones, size := ipNet.Mask.Size()
		if a = a.Unmap(); size == 128 && a.Is4() {
			ones -= 96
		}
		// A mask of no bits would be the whole internet: take the address.
		if ones <= 0 {
			ones = a.BitLen()
		}
		prefixes = append(prefixes, netip.PrefixFrom(a, ones).Masked())
	}
	return prefixes, nil
}
