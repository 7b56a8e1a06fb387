package announce

import (
	"fmt"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// The kinds of events that tell where somebody is and whom they follow.
const (
	KindFollows   = 3     // NIP-02
	KindRelayList = 10002 // NIP-65
)

const (
	maxRelayList = 32   // entries read of a relay list
	maxFollows   = 4000 // of a follow list; more do not fit an event that is read
)

// RelayList is where somebody reads and writes (NIP-65). An exit is looked for
// where it reads.
type RelayList struct {
	Key     envelope.PublicKey
	Created time.Time
	Read    []string
	Write   []string
}

// Follows is whom somebody follows (NIP-02), in the list's order.
type Follows struct {
	Key     envelope.PublicKey
	Created time.Time
	Keys    []envelope.PublicKey
}

// ParseRelayList reads and verifies a relay list. People's lists are full of
// what is no relay: such entries are left out, like those that must not be
// dialled on a stranger's word unless allow permits them (see Parse), and those
// beyond a bound. Of several lists by one author the newest counts.
func ParseRelayList(ev *envelope.Event, now time.Time, allow func(address string) bool) (RelayList, error) {
	list := RelayList{Key: ev.PubKey, Created: time.Unix(ev.CreatedAt, 0)}
	if err := checkList(ev, KindRelayList, now); err != nil {
		return RelayList{}, err
	}
	n := 0
	for _, tag := range ev.TagStrings() {
		if len(tag) < 2 || tag[0] != "r" {
			continue
		}
		relay, err := name.Relay(tag[1])
		if err != nil || name.PublicRelay(relay) != nil && (allow == nil || !allow(relay)) {
			continue
		}
		if n++; n > maxRelayList {
			break
		}
		use := first(tag[2:])
		if use != "write" && !slices.Contains(list.Read, relay) {
			list.Read = append(list.Read, relay)
		}
		if use != "read" && !slices.Contains(list.Write, relay) {
			list.Write = append(list.Write, relay)
		}
	}
	return list, nil
}

// ParseFollows reads and verifies a follow list; entries that are no keys are
// left out. Of several lists by one author the newest counts.
func ParseFollows(ev *envelope.Event, now time.Time) (Follows, error) {
	list := Follows{Key: ev.PubKey, Created: time.Unix(ev.CreatedAt, 0)}
	if err := checkList(ev, KindFollows, now); err != nil {
		return Follows{}, err
	}
	known := make(map[envelope.PublicKey]bool)
	for tag, value := range ev.Tags {
		if string(tag) != "p" || len(list.Keys) >= maxFollows {
			continue
		}
		if key, ok := hexKey(string(value)); ok && !known[key] {
			known[key] = true
			list.Keys = append(list.Keys, key)
		}
	}
	return list, nil
}

func checkList(ev *envelope.Event, kind int, now time.Time) error {
	if ev.Kind != kind {
		return fmt.Errorf("announce: kind %d where %d belongs", ev.Kind, kind)
	}
	if time.Unix(ev.CreatedAt, 0).After(now.Add(maxAhead)) {
		return ErrFuture
	}
	return ev.Verify()
}
