package platform

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// After the tunnel is down, packets to its reserved networks are refused by
// policies of the kernel's IPsec layer that block: the only refusal there is,
// for both families, that the kernel itself ends after a time. So nothing needs
// to be running, or to be cleaned up, and no journal lists them.

// linger has what is reserved refused beyond the packet filter that is about to
// go. It is best effort: a kernel without IPsec does not stop a tunnel from
// going down.
func (c *configurator) linger() {
	f, ok := find(c.applied, (&filterChange{}).String()).(*filterChange)
	if !ok || f.Spec.Linger <= 0 {
		return
	}
	for _, p := range f.Spec.Reserved {
		c.tell("", fmt.Sprintf("ip xfrm policy add dst %s dir out action block limit time-hard %d", p, seconds(f.Spec.Linger)))
		if err := blockFor(p, f.Spec.Linger); err != nil {
			c.log.Info("addresses that only the tunnel knows are not refused after it", "network", p.String(), "err", err)
		}
	}
}

// endLinger lifts what an earlier tunnel has left.
func (c *configurator) endLinger(cfg Config) {
	for _, p := range cfg.Reserved {
		err := unblock(p)
		switch {
		case err == nil:
			c.tell("", fmt.Sprintf("ip xfrm policy delete dst %s dir out", p))
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		default:
			c.log.Warn("addresses of the tunnel may be refused for a while", "network", p.String(), "err", err)
		}
	}
}

func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

// blockFor has the kernel refuse packets to p, for a time.
func blockFor(p netip.Prefix, d time.Duration) error {
	const out, block = 1, 1 // XFRM_POLICY_OUT, XFRM_POLICY_BLOCK
	info := &nl.XfrmUserpolicyInfo{Sel: selector(p), Dir: out, Action: block}
	info.Lft = nl.XfrmLifetimeCfg{
		SoftByteLimit: nl.XFRM_INF, HardByteLimit: nl.XFRM_INF, SoftPacketLimit: nl.XFRM_INF, HardPacketLimit: nl.XFRM_INF,
		HardAddExpiresSeconds: seconds(d),
	}
	req := nl.NewNetlinkRequest(nl.XFRM_MSG_UPDPOLICY, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_XFRM, 0)
	return err
}

func unblock(p netip.Prefix) error {
	req := nl.NewNetlinkRequest(nl.XFRM_MSG_DELPOLICY, unix.NLM_F_ACK)
	req.AddData(&nl.XfrmUserpolicyId{Sel: selector(p), Dir: 1})
	_, err := req.Execute(unix.NETLINK_XFRM, 0)
	return err
}

func selector(p netip.Prefix) nl.XfrmSelector {
	p = p.Masked()
	s := nl.XfrmSelector{Family: uint16(afOf(familyOf(p.Addr()))), PrefixlenD: uint8(p.Bits())}
	s.Daddr.FromIP(p.Addr().AsSlice())
	return s
}
