package exit

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestResolvConf(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil,
		"# nameserver 1.1.1.1\nsearch corp.lan\n;x":     nil,
		"nameserver 1.1.1.1":                            {"1.1.1.1:53"},
		"\tnameserver  2606::1 # x\r\nnameserver ::1\n": {"[2606::1]:53", "[::1]:53"},
		"nameserver fe80::1%eth0\n":                     {"[fe80::1%eth0]:53"},
		"nameserver\nnameserver x\nnameserver 1.1.1.1:53\nnameservers 1.1.1.1\nnameserver 9.9.9.9": {"9.9.9.9:53"},
		strings.Repeat("nameserver 1.1.1.1\n", 9):                                                  {"1.1.1.1:53", "1.1.1.1:53", "1.1.1.1:53"},
	} {
		var got []string
		for _, ap := range parseResolvConf(text) {
			got = append(got, ap.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestResolvConfIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	c := &resolvConf{path: path}
	get := func() []upstream {
		c.fresh = time.Time{}
		servers, err := c.get()
		if (len(servers) == 0) != (err != nil) {
			t.Errorf("%v and %v", servers, err)
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name the file: %v", err)
		}
		return servers
	}
	write := func(text string, age time.Duration) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if got := get(); got != nil {
		t.Errorf("without a file: %v", got)
	}
	write("nameserver 192.0.2.1\n", time.Hour)
	first := get()
	write("nameserver 192.0.2.2\n", time.Minute)
	second := get()
	want := []upstream{plainUpstream{netip.MustParseAddrPort("192.0.2.2:53")}}
	if len(first) != 1 || !reflect.DeepEqual(second, want) {
		t.Errorf("%v, then %v", first, second)
	}
	write("search lan\n", time.Second)
	if got := get(); got != nil {
		t.Errorf("without a server: %v", got)
	}
}
