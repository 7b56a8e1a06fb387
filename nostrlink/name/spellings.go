package name

import (
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/nbd-wtf/go-nostr/nip19"
)

// Spellings are all the ways to write one name, for people to choose from.
type Spellings struct {
	Key      string   // 64 hexadecimal digits
	NPub     string   // without the relays
	NProfile string   // with all relays
	Host     string   // as NWS prints it, with the relays that fit
	KeyHost  string   // the same without relays
	NPubHost string   // npub1….nostr, without relays
	Relays   []string // all of them
	LeftOut  []string // the relays that Host has no room for
}

// New returns the name of a key, in any spelling that Parse accepts, on further
// relays: those in the spelling come first, and each relay once.
func New(key string, relays []string) (Name, error) {
	n, err := Parse(key)
	if err != nil {
		return Name{}, err
	}
	for _, text := range relays {
		relay, err := Relay(text)
		if err != nil {
			return Name{}, fmt.Errorf("%w: %.80q", err, text)
		}
		if !slices.ContainsFunc(n.Relays, func(known string) bool { return sameRelay(known, relay) }) {
			n.Relays = append(n.Relays, relay)
		}
	}
	if len(n.Relays) > maxRelays {
		return Name{}, fmt.Errorf("name: %d relays, at most %d fit any spelling", len(n.Relays), maxRelays)
	}
	return n, nil
}

// Spellings returns all the ways to write n. Reading Host back gives n without
// the relays in LeftOut, reading NProfile all of n.
func (n Name) Spellings() (Spellings, error) {
	for _, relay := range n.Relays {
		if err := checkRelay(relay); err != nil {
			return Spellings{}, fmt.Errorf("name: relay: %w", err)
		}
	}
	digits := hex.EncodeToString(n.Key[:])
	profile, err := nip19.EncodeProfile(digits, n.Relays)
	if err != nil {
		return Spellings{}, fmt.Errorf("name: nprofile: %w", err)
	}
	s := Spellings{
		Key:      digits,
		NPub:     n.NPub(),
		NProfile: profile,
		Host:     n.Host(),
		KeyHost:  Name{Key: n.Key}.Host(),
		NPubHost: n.NPub() + "." + tld,
		Relays:   n.Relays,
	}
	short, err := ParseHost(s.Host)
	if err != nil {
		return Spellings{}, err
	}
	for _, relay := range n.Relays {
		if !slices.Contains(short.Relays, relay) {
			s.LeftOut = append(s.LeftOut, relay)
		}
	}
	return s, nil
}

// sameRelay reports whether a relay, as somebody wrote it, is the canonical one.
func sameRelay(written, canonical string) bool {
	relay, err := Relay(written)
	return err == nil && relay == canonical
}
