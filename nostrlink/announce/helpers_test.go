package announce

import (
	"fmt"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// now is the time of the tests.
var now = time.Unix(1795227605, 0)

// sign makes an event of any kind with any tags.
func sign(t testing.TB, key envelope.SecretKey, kind int, at time.Time, tags ...[]string) *envelope.Event {
	t.Helper()
	raw, _ := envelopetest.Sign(t, key, envelope.Template{Kind: kind, CreatedAt: at, Tags: tags})
	return envelopetest.Parse(t, raw)
}

// announced makes an announcement at a time that counts for life.
func announced(t testing.TB, key envelope.SecretKey, at time.Time, life time.Duration, relays ...string) *envelope.Event {
	t.Helper()
	raw, _, err := Append(nil, key, at, Announcement{Relays: relays, Load: NoLoad, Expires: at.Add(life)})
	if err != nil {
		t.Fatal(err)
	}
	return envelopetest.Parse(t, raw)
}

func expiration(at time.Time) []string { return []string{"expiration", fmt.Sprint(at.Unix())} }

func anyAddress(string) bool { return true }
