package exit

import (
	"net/netip"
	"testing"
)

func TestCheckPublic(t *testing.T) {
	for _, text := range []string{"9.9.9.9", "2620:fe::fe", "::ffff:9.9.9.9"} {
		if err := CheckPublic(netip.MustParseAddr(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		"127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1",
		"::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1",
	} {
		if CheckPublic(netip.MustParseAddr(text)) == nil {
			t.Errorf("%s is taken for public", text)
		}
	}
	if CheckPublic(netip.Addr{}) == nil {
		t.Error("no address is taken for public")
	}
}
