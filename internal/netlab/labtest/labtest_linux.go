package labtest

import (
	"os"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// New returns an empty lab. A lab that cannot be closed fails the test.
func New(t testing.TB) *netlab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	lab := netlab.New()
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// Host returns a host that is alone in its lab.
func Host(t testing.TB, name string) *netlab.Host {
	t.Helper()
	host, err := New(t).Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return host
}
