package platform

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The settings we may change, below /proc/sys/net.
const (
	// A reverse path check of a marked packet looks it up with its mark.
	srcValidMark = "ipv4/conf/all/src_valid_mark"
	// ARP answers only for an address of the interface that was asked, within
	// its subnet: nobody on the uplink's network learns the tunnel's address.
	arpIgnore = "ipv4/conf/all/arp_ignore"
	// Replies to marked sockets come in unmarked. A strict reverse path check
	// looks them up in our table, finds the TUN, and drops them; a loose one
	// lets them in. The greater of "all" and the interface's own counts. (Once
	// a packet filter restores the mark on replies, this is not needed.)
	rpFilter = "ipv4/conf/all/rp_filter"
	// What answers a packet from outside has the mark that the packet filter
	// gave it: connections that programs accept, and the kernel's own answers.
	// So they find their way also while nothing else does.
	markAccepted   = "ipv4/tcp_fwmark_accept"
	markReflected4 = "ipv4/fwmark_reflect"
	markReflected6 = "ipv6/fwmark_reflect"
)

// sysctlChange is one setting of the network namespace.
type sysctlChange struct {
	Name  string // below /proc/sys/net
	Value int
	Old   int
}

func (s *sysctlChange) String() string {
	return fmt.Sprintf("sysctl net.%s=%d", strings.ReplaceAll(s.Name, "/", "."), s.Value)
}

func (s *sysctlChange) check() error {
	switch s.Name {
	case srcValidMark, arpIgnore, rpFilter, markAccepted, markReflected4, markReflected6:
		return nil
	}
	return fmt.Errorf("sysctl %q is none of ours", s.Name)
}

func (s *sysctlChange) inForce(*env) (bool, error) {
	v, err := readSysctl(s.Name)
	return v == s.Value, err
}

func (s *sysctlChange) apply(*env) error { return writeSysctl(s.Name, s.Value) }

// undo writes the old value back, unless somebody has set another since.
func (s *sysctlChange) undo(*env) error {
	v, err := readSysctl(s.Name)
	if err != nil || v != s.Value || v == s.Old {
		return err
	}
	return writeSysctl(s.Name, s.Old)
}

func (s *sysctlChange) note(err error) string {
	name := "net." + strings.ReplaceAll(s.Name, "/", ".")
	why := "the tunnel's address may be seen by the network you are attached to"
	switch s.Name {
	case rpFilter:
		why = "relays may stay out of reach, because this machine checks the way back of packets strictly"
	case markAccepted, markReflected4, markReflected6:
		why = "connections from outside may stall while the tunnel is not connected"
	case srcValidMark:
		why = "relays may stay out of reach where the way back of packets is checked strictly"
	}
	return fmt.Sprintf("cannot set %s to %d (%v): %s; set it yourself, in a container with --sysctl %s=%d", name, s.Value, err, why, name, s.Value)
}

const sysctlRoot = "/proc/sys/net/"

func readSysctl(name string) (int, error) {
	b, err := os.ReadFile(sysctlRoot + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func writeSysctl(name string, value int) error {
	f, err := os.OpenFile(sysctlRoot+name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(value))
	return errors.Join(err, f.Close())
}

// strictReversePath reports whether packets in on some interface, present or to
// come, are checked strictly.
func strictReversePath(device string) (bool, error) {
	all, err := readSysctl(rpFilter)
	if err != nil {
		return false, err
	}
	entries, err := os.ReadDir(sysctlRoot + "ipv4/conf")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if n := e.Name(); n == "all" || n == "lo" || n == device {
			continue
		}
		own, err := readSysctl(filepath.Join("ipv4/conf", e.Name(), "rp_filter"))
		if err != nil {
			continue // the interface went meanwhile
		}
		if max(all, own) == 1 {
			return true, nil
		}
	}
	return false, nil
}
