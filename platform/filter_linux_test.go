package platform

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

func TestExplainFilter(t *testing.T) {
	if explainFilter(nil) != nil {
		t.Error("success is an error")
	}
	for err, want := range map[error]string{
		unix.EPROTONOSUPPORT: "kill_switch = \"off\"", unix.ENOENT: "modprobe nf_tables",
		unix.EOPNOTSUPP: "lacks nf_tables", unix.EPERM: "CAP_NET_ADMIN", unix.ENOBUFS: "no buffer space",
	} {
		got := explainFilter(err)
		if !errors.Is(got, err) || !strings.Contains(got.Error(), want) || strings.Contains(got.Error(), "\n") {
			t.Errorf("%v: %v, want %q in one line", err, got, want)
		}
	}
}

// TestMarksAreDistinct has the values of a connection's mark for every mask that
// is taken.
func TestMarksAreDistinct(t *testing.T) {
	for _, tc := range []struct{ mark, mask uint32 }{
		{DefaultMark, DefaultMask}, {0x10, 0xffffffff}, {1, 3}, {0x80000000, 0x80000001}, {0xff, 0xff},
	} {
		s := filterSpec{Mark: tc.mark, Mask: tc.mask}
		values := map[uint32]bool{s.uplink(): true, s.inbound(): true, s.direct(): true}
		for v := range values {
			if v&tc.mask != v {
				t.Errorf("mark %#x/%#x: %#x is outside", tc.mark, tc.mask, v)
			}
		}
		if len(values) != 3 || values[0] {
			t.Errorf("mark %#x/%#x: the values are %v", tc.mark, tc.mask, values)
		}
	}
}

// TestFilterOfTheGreatestSize reads back what the kernel has of it.
func TestFilterOfTheGreatestSize(t *testing.T) {
	enterNamespaces(t)
	cfg := filterConfig()
	for i := range MaxNetworks {
		cfg.Exclude = append(cfg.Exclude, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24))
	}
	for i := range uint32(maxUIDs) {
		cfg.ExcludeUIDs = append(cfg.ExcludeUIDs, 1000+i)
	}
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	must(t, c.Set(cfg))
	conn, err := nftConn()
	must(t, err)
	for _, chain := range find(c.(*configurator).applied, (&filterChange{}).String()).(*filterChange).Spec.chains() {
		rules, err := conn.GetRules(ourTable(), &nftables.Chain{Name: chain.name})
		must(t, err)
		if len(rules) != len(chain.rules) {
			t.Errorf("%s: %d rules, want %d", chain.name, len(rules), len(chain.rules))
		}
	}
}
