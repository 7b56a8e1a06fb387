package exit

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	dnsPort = 53
	// maxNameservers is how many servers are used, as in the C library.
	maxNameservers = 3
	// resolvConfLifetime is how long the file is not looked at again.
	resolvConfLifetime = 5 * time.Second
	maxResolvConf      = 1 << 20
	resolvConfPath     = "/etc/resolv.conf"
)

// fixedServers serves the operator's own list.
func fixedServers(servers []upstream) func() ([]upstream, error) {
	return func() ([]upstream, error) { return servers, nil }
}

// resolvConf follows the machine's own list of name servers. It is safe for
// concurrent use.
type resolvConf struct {
	path string

	mu      sync.Mutex
	fresh   time.Time // until when nothing is looked at
	changed time.Time // the file's time when it was read
	servers []upstream
	err     error
}

func (c *resolvConf) get() ([]upstream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.After(c.fresh) {
		c.fresh = now.Add(resolvConfLifetime)
		c.readLocked()
	}
	return c.servers, c.err
}

func (c *resolvConf) readLocked() {
	info, err := os.Stat(c.path)
	if err == nil && info.ModTime().Equal(c.changed) {
		return
	}
	var text []byte
	if err == nil && info.Size() > maxResolvConf {
		err = fmt.Errorf("%s is too large", c.path)
	}
	if err == nil {
		text, err = os.ReadFile(c.path)
	}
	if err != nil {
		c.servers, c.changed = nil, time.Time{}
		c.err = fmt.Errorf("exit: name servers: %w: give the exit name servers of its own", err)
		return
	}
	c.changed = info.ModTime()
	c.servers, c.err = nil, nil
	for _, addr := range parseResolvConf(string(text)) {
		c.servers = append(c.servers, plainUpstream{addr})
	}
	if len(c.servers) == 0 {
		c.err = fmt.Errorf("exit: no name server in %s: give the exit name servers of its own", c.path)
	}
}

// parseResolvConf returns the name servers in a resolv.conf, the first few of
// them. Lines that make no sense are passed over, as everybody does.
func parseResolvConf(text string) []netip.AddrPort {
	var servers []netip.AddrPort
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err != nil {
			continue
		}
		if servers = append(servers, netip.AddrPortFrom(a, dnsPort)); len(servers) == maxNameservers {
			break
		}
	}
	return servers
}
