// Package envelopetest makes keys and events for tests. What cannot be made ends
// the test, so everything here is for the goroutine that runs it.
package envelopetest

import (
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// NewKey returns a key that nobody had before.
func NewKey(t testing.TB) envelope.SecretKey {
	t.Helper()
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Sign returns an event of a key, as relays take it, and its id.
func Sign(t testing.TB, key envelope.SecretKey, template envelope.Template) (raw []byte, id [32]byte) {
	t.Helper()
	raw, id, err := envelope.Sign(nil, key, template)
	if err != nil {
		t.Fatal(err)
	}
	return raw, id
}

// Parse reads an event. It is unverified, and refers to raw.
func Parse(t testing.TB, raw []byte) *envelope.Event {
	t.Helper()
	ev, err := envelope.ParseEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &ev
}
