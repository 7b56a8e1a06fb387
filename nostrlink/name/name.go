// Package name reads and writes the names under which an exit is reached.
//
// An exit is a Nostr public key, with or without the relays where it listens.
// That pair has several spellings, and each of them names the same thing:
//
//	<relay>.<relay>.<key>.nostr    as NWS prints it, any number of relays
//	<key>.nostr
//	<npub1…>.nostr                 an npub is exactly one DNS label long
//	<petname>.nostr                from the configuration, see Book
//	npub1…  nprofile1…             NIP-19, no host names
//	64 hexadecimal digits
//
// <relay> is the text of a relay's URL and <key> the 32 bytes of the x-only
// key, both in the extended hexadecimal alphabet of base 32 (RFC 4648, section
// 7), in lower case, without padding. A label of the DNS holds 63 characters,
// so a relay URL of more than 39 bytes cannot be written into a host name.
//
// Case does not matter in any spelling: resolvers play with it. Apart from
// that, one pair has one host name: a label with spare bits set or a
// length that no encoder makes is refused, for it would give an application
// two origins for one service. That a key is a point of the curve is not
// checked here; it shows when the key is used.
package name

import (
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"
)

const (
	// maxLabel and maxHost are the DNS's limits (RFC 1035, section 2.3.4; the
	// latter without the root's label and the length octets' overhead).
	maxLabel = 63
	maxHost  = 253
	// maxRelayInHost is what a label holds once it is encoded.
	maxRelayInHost = 39
	// maxRelayURL is what a TLV of NIP-19 holds.
	maxRelayURL = 255
	// maxRelays bounds what a stranger's nprofile can make us try.
	maxRelays = 16
	// maxText bounds any spelling: an nprofile with maxRelays long URLs.
	maxText = 8192

	tld = "nostr"
)

var b32 = base32.HexEncoding.WithPadding(base32.NoPadding)

// Name is an exit's public key and the relays to look for it on, best first.
// Relays may be empty: then they are found by announcement or configuration.
type Name struct {
	Key    [32]byte
	Relays []string
}

// Under reports whether host lies in the .nostr domain, well-formed or not. Such
// a host is nobody's business but ours: it must never reach a resolver.
func Under(host string) bool {
	host = normal(host)
	return host == tld || strings.HasSuffix(host, "."+tld)
}

// ErrNoSpelling is Parse's for what looks like no spelling at all.
var ErrNoSpelling = errors.New("name: neither a .nostr name, npub, nprofile nor 64 hexadecimal digits")

// Parse reads any spelling of a name except petnames. The error says what is
// wrong and never repeats s, which may be a secret pasted by mistake.
func Parse(s string) (Name, error) {
	if len(s) > maxText {
		return Name{}, fmt.Errorf("name: longer than %d characters", maxText)
	}
	text := strings.ToLower(s)
	switch {
	case strings.HasPrefix(text, "nsec1"), strings.HasPrefix(text, "ncryptsec1"):
		return Name{}, errors.New("name: this is a secret key; give the npub instead, and replace the key if others saw it")
	case Under(text):
		return ParseHost(text)
	case strings.HasPrefix(text, "npub1"):
		key, err := parseNPub(text)
		return Name{Key: key}, err
	case strings.HasPrefix(text, "nprofile1"):
		return parseNProfile(text)
	case len(text) == 64:
		key, err := parseHex(text)
		return Name{Key: key}, err
	}
	return Name{}, ErrNoSpelling
}

// ParseHost reads a host name that ends in .nostr and contains its key, with or
// without the dot of the root. Petnames are in a Book.
func ParseHost(host string) (Name, error) {
	if len(host) > maxHost+1 {
		return Name{}, fmt.Errorf("name: host longer than %d characters", maxHost)
	}
	host = normal(host)
	if len(host) > maxHost {
		return Name{}, fmt.Errorf("name: host longer than %d characters", maxHost)
	}
	rest, ok := strings.CutSuffix(host, "."+tld)
	if !ok {
		return Name{}, errors.New("name: host does not end in .nostr")
	}
	labels := strings.Split(rest, ".")
	last := len(labels) - 1
	if last == 0 && strings.HasPrefix(rest, "npub1") {
		key, err := parseNPub(rest)
		return Name{Key: key}, err
	}
	key, err := decodeLabel(labels[last])
	if err != nil {
		return Name{}, fmt.Errorf("name: key: %w", err)
	}
	if len(key) != 32 {
		return Name{}, fmt.Errorf("name: key of %d bytes instead of 32", len(key))
	}
	n := Name{Key: [32]byte(key)}
	for i, label := range labels[:last] {
		relay, err := decodeLabel(label)
		if err == nil {
			err = checkRelay(string(relay))
		}
		if err != nil {
			return Name{}, fmt.Errorf("name: relay %d: %w", i+1, err)
		}
		n.Relays = append(n.Relays, string(relay))
	}
	return n, nil
}

// Host returns the name in the form that NWS prints. Relays whose URL is longer
// than 39 bytes, or that make the name longer than the DNS allows, are left out.
func (n Name) Host() string {
	tail := strings.ToLower(b32.EncodeToString(n.Key[:])) + "." + tld
	var b strings.Builder
	for _, relay := range n.Relays {
		if len(relay) > maxRelayInHost || checkRelay(relay) != nil {
			continue
		}
		label := strings.ToLower(b32.EncodeToString([]byte(relay)))
		if b.Len()+len(label)+1+len(tail) > maxHost {
			continue
		}
		b.WriteString(label)
		b.WriteByte('.')
	}
	return b.String() + tail
}

// NPub returns the key as NIP-19 writes it, without the relays.
func (n Name) NPub() string {
	// Encoding fails only for keys that are not hexadecimal.
	s, _ := nip19.EncodePublicKey(hex.EncodeToString(n.Key[:]))
	return s
}

func normal(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// decodeLabel decodes one lower-case label. The decoder behind it overlooks
// spare bits and line ends; encoding again finds both.
func decodeLabel(label string) ([]byte, error) {
	if label == "" || len(label) > maxLabel {
		return nil, fmt.Errorf("a label has 1 to %d characters, not %d", maxLabel, len(label))
	}
	data, err := b32.DecodeString(strings.ToUpper(label))
	if err != nil {
		return nil, errors.New("not in the base 32 alphabet 0-9 a-v, or cut short")
	}
	if strings.ToLower(b32.EncodeToString(data)) != label {
		return nil, errors.New("not the one way to write these bytes in base 32")
	}
	return data, nil
}

func parseNPub(text string) ([32]byte, error) {
	prefix, value, err := nip19.Decode(text)
	if err != nil {
		return [32]byte{}, errors.New("name: not a valid npub (mistyped?)")
	}
	digits, ok := value.(string)
	if prefix != "npub" || !ok {
		return [32]byte{}, errors.New("name: npub: holds something else")
	}
	key, err := parseHex(digits)
	if err != nil {
		return [32]byte{}, err
	}
	if (Name{Key: key}).NPub() != text {
		return [32]byte{}, errors.New("name: npub: not the one way to write this key")
	}
	return key, nil
}

// parseNProfile reads a NIP-19 profile. Unlike the other spellings it may hold
// entries that we do not know, which NIP-19 wants ignored, so that it is not
// compared with its own encoding.
func parseNProfile(text string) (Name, error) {
	prefix, value, err := nip19.Decode(text)
	if err != nil {
		return Name{}, errors.New("name: not a valid nprofile (mistyped?)")
	}
	profile, ok := value.(nostr.ProfilePointer)
	if prefix != "nprofile" || !ok {
		return Name{}, errors.New("name: nprofile: holds something else")
	}
	if len(profile.Relays) > maxRelays {
		return Name{}, fmt.Errorf("name: nprofile: more than %d relays", maxRelays)
	}
	key, err := parseHex(profile.PublicKey)
	if err != nil {
		return Name{}, err
	}
	for i, relay := range profile.Relays {
		if err := checkRelay(relay); err != nil {
			return Name{}, fmt.Errorf("name: nprofile: relay %d: %w", i+1, err)
		}
	}
	return Name{Key: key, Relays: profile.Relays}, nil
}

func parseHex(text string) ([32]byte, error) {
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != 32 {
		return [32]byte{}, errors.New("name: a key is 64 hexadecimal digits")
	}
	return [32]byte(data), nil
}

// checkRelay refuses what is no address of a relay. The http schemes are how
// some exits wrote their websocket's address. Whether an address may be
// dialled is for the dialler to say.
func checkRelay(relay string) error {
	if relay == "" || len(relay) > maxRelayURL {
		return fmt.Errorf("a URL has 1 to %d characters, not %d", maxRelayURL, len(relay))
	}
	for _, c := range []byte(relay) {
		if c <= ' ' || c > '~' {
			return errors.New("a URL is printable ASCII without blanks")
		}
	}
	u, err := url.Parse(relay)
	if err != nil || u.Hostname() == "" || strings.Contains(u.Hostname(), ":") && u.Host[0] != '[' {
		return errors.New("not a URL with a host")
	}
	switch u.Scheme {
	case "ws", "wss", "http", "https", "wsn":
		return nil
	}
	return errors.New("not a relay's URL: it begins with neither ws:// nor wss://")
}
