package nostrlink

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// TestSessionsProveTheirKeys: our own relay verifies hardly a signature of a
// transfer, because both ends have proved to hold their session's key.
func TestSessionsProveTheirKeys(t *testing.T) {
	relay := relayd.New(relayd.Options{})
	server := httptest.NewServer(relay)
	t.Cleanup(func() { relay.Close(); server.Close() })
	url := "ws" + strings.TrimPrefix(server.URL, "http")
	ctx, key := patience(t), newKey(t)
	startExit(t, key, url)
	_, link := startLink(t, key.Public(), url)
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	for relay.Stats().Authenticated < 4 { // each end with its own key and its session's
		conn, err := link.DialContext(ctx, "tcp", "example.com:80")
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, conn, 1000)
	}
	before := relay.Stats()
	conn, err := link.DialContext(ctx, "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, 3<<20)
	after := relay.Stats()
	if after.Verified != before.Verified || after.Vouched-before.Vouched < 2*3<<20/40960 {
		t.Errorf("verified %d of %d events", after.Verified-before.Verified, after.Accepted-before.Accepted)
	}
}
