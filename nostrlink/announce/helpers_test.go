package announce

import (
	"fmt"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// now is the time of the tests.
var now = time.Unix(1795227605, 0)

func newKey(t testing.TB) envelope.SecretKey {
	t.Helper()
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parseEvent(t testing.TB, raw []byte) *envelope.Event {
	t.Helper()
	ev, err := envelope.ParseEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &ev
}

// sign makes an event of any kind with any tags.
func sign(t testing.TB, key envelope.SecretKey, kind int, at time.Time, tags ...[]string) *envelope.Event {
	t.Helper()
	raw, _, err := envelope.Sign(nil, key, envelope.Template{Kind: kind, CreatedAt: at, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	return parseEvent(t, raw)
}

// announced makes an announcement at a time that counts for life.
func announced(t testing.TB, key envelope.SecretKey, at time.Time, life time.Duration, relays ...string) *envelope.Event {
	t.Helper()
	raw, _, err := Append(nil, key, at, Announcement{Relays: relays, Load: NoLoad, Expires: at.Add(life)})
	if err != nil {
		t.Fatal(err)
	}
	return parseEvent(t, raw)
}

func expiration(at time.Time) []string { return []string{"expiration", fmt.Sprint(at.Unix())} }

func anyAddress(string) bool { return true }
