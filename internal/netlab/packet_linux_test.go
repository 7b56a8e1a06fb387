package netlab

import (
	"encoding/hex"
	"strings"
	"testing"
)

func frame(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const (
	ether4 = "020000000001 020000000002 0800 "
	ether6 = "020000000001 020000000002 86dd "
	udp4   = ether4 + "4500001e 00010000 40110000 0a000001 0a000002 0fa0 1388 000a 0000 6869"
	later4 = ether4 + "4500001e 00012003 40110000 0a000001 0a000002 0fa0 1388 000a 0000 6869"
	// A listener report behind a hop-by-hop header with a router alert.
	mld6 = ether6 + "60000000 00240001 fe800000000000000000000000000001 ff020000000000000000000000000016 " +
		"3a000502 00000100 8f00 0000"
	arp = "ffffffffffff 020000000002 0806 0001"
)

func TestParsePacket(t *testing.T) {
	for _, c := range []struct {
		name, frame, source, destination string
		protocol                         uint8
		local                            bool
	}{
		{"udp", udp4, "10.0.0.1:4000", "10.0.0.2:5000", 17, false},
		{"later fragment", later4, "10.0.0.1:0", "10.0.0.2:0", 17, false},
		{"listener report", mld6, "[fe80::1]:0", "[ff02::16]:0", 58, true},
		{"arp", arp, "invalid AddrPort", "invalid AddrPort", 0, true},
		{"short", "0200", "invalid AddrPort", "invalid AddrPort", 0, false},
	} {
		p := parsePacket(frame(t, c.frame))
		if p.Source.String() != c.source || p.Destination.String() != c.destination || p.Protocol != c.protocol || p.Local() != c.local {
			t.Errorf("%s: got %s (protocol %d, local %v)", c.name, p, p.Protocol, p.Local())
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	for _, text := range []string{udp4, later4, mld6, arp} {
		f.Add(frame(f, text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := parsePacket(data)
		if len(p.Data) > len(data) {
			t.Error("data grew")
		}
		_ = p.String()
	})
}
