package relayd

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
)

const (
	// maxKeys bounds the keys that a connection is remembered to hold. An exit
	// has one for each session. Beyond it one is forgotten, which chance decides.
	maxKeys = 512
	// maxAuthAge is how far the clock of one who authenticates may be from ours.
	maxAuthAge = 10 * time.Minute
)

// identity is whom a client has proved to be (NIP-42): the holder of some keys.
type identity struct {
	mu     sync.RWMutex
	keys   map[envelope.PublicKey]bool
	member bool      // one of the keys is a member's,
	of     *settings // according to these
}

// add notes a key. Of members' keys none is forgotten.
func (i *identity) add(key envelope.PublicKey, members map[envelope.PublicKey]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keys == nil {
		i.keys = make(map[envelope.PublicKey]bool)
	}
	for old := range i.keys {
		if len(i.keys) < maxKeys {
			break
		}
		if !members[old] {
			delete(i.keys, old)
		}
	}
	i.keys[key] = true
	i.of = nil
}

// holds reports whether the client has proved to hold the key.
func (i *identity) holds(key envelope.PublicKey) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.keys[key]
}

// holdsOneOf is holds for any of sorted keys. It goes through the fewer.
func (i *identity) holdsOneOf(list []envelope.PublicKey) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if len(list) <= len(i.keys) {
		return slices.ContainsFunc(list, func(key envelope.PublicKey) bool { return i.keys[key] })
	}
	for key := range i.keys {
		if _, found := slices.BinarySearchFunc(list, key, compareKeys); found {
			return true
		}
	}
	return false
}

// known reports whether the client has authenticated.
func (i *identity) known() bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.keys) > 0
}

// admitted reports whether the client may use a relay with these settings.
func (i *identity) admitted(set *settings) bool {
	if set.members == nil {
		return true
	}
	i.mu.RLock()
	member, of := i.member, i.of
	i.mu.RUnlock()
	if of == set {
		return member
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.member, i.of = false, set
	for key := range i.keys {
		i.member = i.member || set.members[key]
	}
	return i.member
}

func newChallenge() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// authenticate handles an AUTH whose event has been verified.
func (c *conn) authenticate(j *job) {
	s, e := c.server, &j.event
	err := j.verdict
	if err == nil {
		err = c.checkAuth(e, time.Now())
	}
	if err != nil {
		c.faults++
		c.ok(j, false, "invalid: "+plain(err))
		return
	}
	set := s.settings.Load()
	c.identity.add(e.PubKey, set.members)
	s.stats.authenticated.Add(1)
	if !c.identity.admitted(set) {
		c.ok(j, false, string(notMember))
		return
	}
	c.ok(j, true, "")
}

func (c *conn) checkAuth(e *envelope.Event, now time.Time) error {
	age := now.Sub(time.Unix(e.CreatedAt, 0))
	switch relay := firstTag(e, "relay"); {
	case e.Kind != kindAuth:
		return fmt.Errorf("kind %d does not authenticate, %d does", e.Kind, kindAuth)
	case age > maxAuthAge || age < -maxAuthAge:
		return fmt.Errorf("created_at is more than %v away; is the clock right?", maxAuthAge)
	case firstTag(e, "challenge") != c.challenge:
		return fmt.Errorf("not the challenge of this connection")
	case !isUs(relay, c.server.names, c.local):
		return fmt.Errorf("relay %.100q is not the name of this one; its operator can add it to the names", relay)
	}
	return nil
}

// isUs reports whether a relay's URL means us: by one of our names, or by the
// address that the client is connected to. What the client calls us in its HTTP
// request does not count: another relay could pass our challenge on to its own
// clients and present their answers here.
func isUs(relay string, names []string, local netip.AddrPort) bool {
	u, err := url.Parse(relay)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" {
		return false
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	for _, name := range names {
		if strings.EqualFold(name, host) || strings.EqualFold(name, net.JoinHostPort(host, port)) {
			return true
		}
	}
	if !local.IsValid() || port != fmt.Sprint(local.Port()) {
		return false
	}
	if host == "localhost" {
		return local.Addr().IsLoopback()
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap() == local.Addr().Unmap()
}

const (
	authRequired refusal = "auth-required: this relay is for its members; authenticate as one of them"
	notMember    refusal = "restricted: this relay is for its members, and this key is none of theirs"
	notAuthor    refusal = "auth-required: this event may only be published by its author (NIP-70); authenticate as the author"
)

// admit says why the client may not publish or read here, or nil.
func (c *conn) admit() error {
	switch {
	case c.identity.admitted(c.server.settings.Load()):
		return nil
	case c.identity.known():
		return notMember
	}
	return authRequired
}

// protects says why the client may not publish an event that its author wants
// nobody else to (NIP-70), or nil.
func (c *conn) protects(e *envelope.Event) error {
	if hasTag(e, "-") && !c.identity.holds(e.PubKey) {
		return notAuthor
	}
	if e.Kind == kindRepost || e.Kind == kindGeneric {
		if within, err := envelope.ParseEvent(e.Content); err == nil && hasTag(&within, "-") {
			return refusal("blocked: this repost holds a protected event (NIP-70)")
		}
	}
	return nil
}

// recipient is the key in the event's first p tag that holds one.
func recipient(e *envelope.Event) (key envelope.PublicKey) {
	for name, value := range e.Tags {
		if string(name) == "p" && nip01.IsHex32(string(value)) {
			return keys[envelope.PublicKey]([]string{string(value)})[0]
		}
	}
	return key
}
