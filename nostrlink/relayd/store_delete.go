package relayd

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
)

// deletions are what the deletion requests that are kept (NIP-09) say, so that
// what was deleted does not come back.
type deletions struct {
	byID      map[deletedID]*stored
	byAddress map[address]*stored // the newest request counts
}

// deletedID is an event, and who asked for its deletion.
type deletedID struct {
	by envelope.PublicKey
	id [32]byte
}

func newDeletions() deletions {
	return deletions{make(map[deletedID]*stored), make(map[address]*stored)}
}

// note takes a deletion request into account, forget no longer.
func (d *deletions) note(request *stored) {
	e := &request.event
	for id := range deletedIDs(e) {
		d.byID[deletedID{e.PubKey, id}] = request
	}
	for at := range deletedAddresses(e) {
		if old := d.byAddress[at]; old == nil || old.event.CreatedAt < e.CreatedAt {
			d.byAddress[at] = request
		}
	}
}

func (d *deletions) forget(request *stored) {
	e := &request.event
	for id := range deletedIDs(e) {
		if key := (deletedID{e.PubKey, id}); d.byID[key] == request {
			delete(d.byID, key)
		}
	}
	for at := range deletedAddresses(e) {
		if d.byAddress[at] == request {
			delete(d.byAddress, at)
		}
	}
}

// concern reports whether the event has been deleted.
func (d *deletions) concern(e *envelope.Event, at address, hasAddress bool) bool {
	if e.Kind == kindDeletion {
		return false // deleting a deletion has no effect
	}
	if d.byID[deletedID{e.PubKey, e.ID}] != nil {
		return true
	}
	if e.Kind == kindGiftWrap {
		for to := range recipients(e) {
			if d.byID[deletedID{to, e.ID}] != nil {
				return true
			}
		}
	}
	if hasAddress {
		if request := d.byAddress[at]; request != nil {
			return e.CreatedAt <= request.event.CreatedAt
		}
	}
	return false
}

// obey removes what a deletion request names and may delete.
func (s *store) obey(request *stored) {
	by := &request.event
	for id := range deletedIDs(by) {
		if old := s.byID[id]; old != nil && mayDelete(by.PubKey, old) {
			s.drop(old)
		}
	}
	for at := range deletedAddresses(by) {
		if old := s.byAddress[at]; old != nil && old.event.CreatedAt <= by.CreatedAt {
			s.drop(old)
		}
	}
}

// mayDelete reports whether the key's deletion requests count for the event:
// for its author's, and for the recipients' of a gift wrap, whose author is a
// throw-away key.
func mayDelete(by envelope.PublicKey, old *stored) bool {
	switch old.event.Kind {
	case kindDeletion:
		return false
	case kindGiftWrap:
		return old.event.PubKey == by || old.tags.has('p', []byte(by.Hex()))
	}
	return old.event.PubKey == by
}

// deletedIDs iterates over the e tags that hold an id.
func deletedIDs(e *envelope.Event) func(yield func([32]byte) bool) {
	return hexTags[[32]byte](e, "e")
}

// recipients iterates over the p tags that hold a key.
func recipients(e *envelope.Event) func(yield func(envelope.PublicKey) bool) {
	return hexTags[envelope.PublicKey](e, "p")
}

func hexTags[K ~[32]byte](e *envelope.Event, tag string) func(yield func(K) bool) {
	return func(yield func(K) bool) {
		for name, value := range e.Tags {
			var k [32]byte
			if string(name) != tag || len(value) != hex.EncodedLen(len(k)) {
				continue
			}
			if bytes.ContainsAny(value, "ABCDEF") {
				continue // NIP-01: lower case
			}
			if _, err := hex.Decode(k[:], value); err == nil && !yield(k) {
				return
			}
		}
	}
}

// deletedAddresses iterates over the a tags that name an address of the event's
// author.
func deletedAddresses(e *envelope.Event) func(yield func(address) bool) {
	return func(yield func(address) bool) {
		for name, value := range e.Tags {
			if string(name) != "a" {
				continue
			}
			if at, ok := parseAddress(string(value)); ok && at.author == e.PubKey && !yield(at) {
				return
			}
		}
	}
}

// parseAddress reads KIND:AUTHOR:D.
func parseAddress(text string) (at address, ok bool) {
	kind, rest, _ := strings.Cut(text, ":")
	author, d, hasD := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(kind, 10, 16)
	if err != nil || !hasD || !nip01.IsHex32(author) {
		return at, false
	}
	at = address{kind: int(n), author: keys[envelope.PublicKey]([]string{author})[0], d: d}
	switch classOf(at.kind) {
	case replaceable:
		return at, d == ""
	case addressable:
		return at, true
	}
	return at, false
}
