package nostrlink

import (
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Who we are is told to the relays that may know, and all others meet the same
// stranger.
func TestAuthKey(t *testing.T) {
	own, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	const ours, other = "wss://ours.example", "wss://other.example"
	for _, test := range []struct {
		name  string
		opts  HubOptions
		known map[string]bool
	}{
		{"no key", HubOptions{AuthRelays: []string{ours}}, nil},
		{"every relay", HubOptions{AuthKey: own}, map[string]bool{ours: true, other: true}},
		{"some relays", HubOptions{AuthKey: own, AuthRelays: []string{"WSS://Ours.example:443/"}}, map[string]bool{ours: true}},
		{"no relay", HubOptions{AuthKey: own, AuthRelays: []string{}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := NewHub(test.opts)
			defer h.Close()
			var strangers []envelope.PublicKey
			for _, url := range []string{ours, other, ours} {
				key, err := h.authKey(url)
				if err != nil {
					t.Fatal(err)
				}
				if known := key.Public() == own.Public(); known != test.known[url] {
					t.Errorf("%s knows us: %v", url, known)
				} else if !known {
					strangers = append(strangers, key.Public())
				}
			}
			for _, s := range strangers {
				if s != strangers[0] {
					t.Error("two strangers")
				}
			}
		})
	}
}
