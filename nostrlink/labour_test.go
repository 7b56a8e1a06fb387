package nostrlink

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// startDemanding runs a relay that wants work of what it keeps.
func startDemanding(t *testing.T, bits int) (url string) {
	t.Helper()
	server := relayd.New(relayd.Options{MinPoW: bits})
	web := httptest.NewServer(server)
	t.Cleanup(func() { server.Close(); web.Close() })
	return "ws" + strings.TrimPrefix(web.URL, "http")
}

// TestExitsWorkForTheirAnnouncement, and to take it back.
func TestExitsWorkForTheirAnnouncement(t *testing.T) {
	some, more, none := startDemanding(t, 6), startDemanding(t, 12), startRelay(t)
	stop := startAnnounced(t, newKey(t), some, more, none)
	for _, relay := range []string{some, more, none} {
		looked(t, directory(t, relay), Rule{}, 1)
	}
	stop()
	for _, relay := range []string{some, more, none} {
		looked(t, directory(t, relay), Rule{}, 0)
	}
}

func TestOwnEventsAreWorkedFor(t *testing.T) {
	hub, key, ctx := NewHub(HubOptions{}), newKey(t), patience(t)
	defer hub.Close()
	event, id := envelopetest.Sign(t, key, envelope.Template{Kind: envelope.KindCertificate, CreatedAt: time.Now(), Content: []byte("c")})
	url := startDemanding(t, 9)
	if err := hub.PublishOwn(ctx, key, url, event, id); err != nil {
		t.Fatal(err)
	}
	found, err := hub.Find(ctx, []string{url}, []relay.Filter{{Kinds: []int{envelope.KindCertificate}}})
	if err != nil || len(found) != 1 || envelope.Work(found[0].ID) < 9 || string(found[0].Content) != "c" || found[0].PubKey != key.Public() {
		t.Errorf("found %d events, %v", len(found), err)
	}
	much := startDemanding(t, mostWork+1)
	if err := hub.PublishOwn(ctx, key, much, event, id); err == nil || !strings.Contains(err.Error(), much+": pow: ") {
		t.Errorf("a relay that wants too much: %v", err)
	}
}

func TestAskedFor(t *testing.T) {
	for reason, want := range map[string]int{
		"pow: difficulty 26 is less than 30":         30,
		"pow: difficulty 2<20":                       20,
		"pow: the work was aimed at 1, less than 12": 12,
		"pow: 28 bits needed":                        28,
		"pow: more":                                  0,
		"pow: 99999999999999999999999":               0,
		"blocked: 20":                                0,
		"20":                                         0,
		"":                                           0,
	} {
		if got := askedFor(reason); got != want {
			t.Errorf("%q asks for %d, not %d", reason, got, want)
		}
	}
}
