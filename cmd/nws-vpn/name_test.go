package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// ran runs a command that touches no network and returns what it printed.
func ran(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.Execute()
	return out.String(), err
}

func TestNameInAllSpellings(t *testing.T) {
	secret := envelopetest.NewKey(t)
	key := secret.Public()
	short, long := "wss://relay.example.org", "wss://a-relay-with-a-long-name.example.org/path"
	text, err := ran("name", "encode", key.NPub(), "--relay", "wss://Relay.example.org:443/", "--relay", long, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var n spelledName
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	if n.Key != key.Hex() || n.NPub != key.NPub() || !slices.Equal(n.Relays, []string{short, long}) || !slices.Equal(n.LeftOut, []string{long}) {
		t.Errorf("encoded as %+v", n)
	}
	for spelling, relays := range map[string][]string{
		n.Key: {}, n.NPub: {}, n.NProfile: {short, long}, n.Name: {short}, n.KeyName: {}, n.NPubName: {},
		strings.ToUpper(n.Name) + ".": {short},
	} {
		text, err := ran("name", "decode", spelling, "--json")
		var got spelledName
		if err == nil {
			err = json.Unmarshal([]byte(text), &got)
		}
		if err != nil || got.Key != key.Hex() || !slices.Equal(got.Relays, relays) {
			t.Errorf("%s reads as %+v, %v; want relays %q", spelling, got, err, relays)
		}
		if text, err = ran("name", "decode", spelling); err != nil || !strings.Contains(text, key.NPub()+"\n") {
			t.Errorf("%s reads as\n%s%v", spelling, text, err)
		}
	}
}

func TestNameThatIsNone(t *testing.T) {
	for _, args := range [][]string{
		{"decode", "example.org"},
		{"decode", ""},
		{"decode", "npub1broken"},
		{"decode", strings.Repeat("ff", 32)}, // no point of the curve
		{"encode", "npub1broken"},
		{"encode", "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798", "--relay", "file:///etc/passwd"},
	} {
		if text, err := ran(append([]string{"name"}, args...)...); err == nil {
			t.Errorf("name %q gave %s", args, text)
		}
	}
	secret := "nsec1" + strings.Repeat("q", 58)
	for _, pet := range []string{"foo.nostr", "Foo.NOSTR."} {
		if _, err := ran("name", "decode", pet); err == nil || !strings.Contains(err.Error(), "is it a petname of [names]") {
			t.Errorf("%s: %v", pet, err)
		}
	}
	if _, err := ran("name", "decode", secret); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a secret key: %v", err)
	}
}
