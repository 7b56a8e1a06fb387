package ifaddr_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/ifaddr"
	"github.com/nws-vpn/nws-vpn/internal/netlab/labtest"
)

// Without the wait, some of the first addresses of a busy machine are not yet
// the kernel's own.
func TestAnAddressWorksAtOnce(t *testing.T) {
	host := labtest.Host(t, "machine")
	err := host.Do(func() error {
		for i := range 50 {
			if err := addAndAsk(fmt.Sprint("test", i), fmt.Sprintf("fd00:%d::1/64", i+1)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func addAndAsk(device, prefix string) error {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: device}, PeerName: device + "peer"}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	peer, err := netlink.LinkByName(link.PeerName)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(peer), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	addr.Flags = unix.IFA_F_NODAD
	for range 2 { // the second time it is there
		if err := ifaddr.Replace(link.Attrs().Index, addr); err != nil {
			return err
		}
	}
	routes, err := netlink.RouteGet(addr.IP)
	if err != nil {
		return err
	}
	if routes[0].Type != unix.RTN_LOCAL {
		return errors.New(prefix + " is not the kernel's own yet")
	}
	return nil
}
