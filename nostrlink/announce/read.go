package announce

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Parse reads an announcement as it counts at now, and verifies it. Relays and
// transports that a stranger must not make us dial (see [name.PublicRelay]) are
// left out unless allow, which may be nil, permits them. The error is
// [ErrExpired], [ErrFuture], envelope.ErrID, envelope.ErrSignature, or says what
// is wrong with the form. The result shares no memory with the event.
func Parse(ev *envelope.Event, now time.Time, allow func(address string) bool) (Announcement, error) {
	a, err := parse(ev, now, now, allow)
	if err == nil {
		err = ev.Verify()
	}
	if err != nil {
		return Announcement{}, err
	}
	return a, nil
}

// parse does everything but verify. expiry is when the announcement must not
// have expired yet.
func parse(ev *envelope.Event, now, expiry time.Time, allow func(string) bool) (Announcement, error) {
	if ev.Kind != envelope.KindAnnouncement {
		return Announcement{}, fmt.Errorf("announce: kind %d is no announcement", ev.Kind)
	}
	if len(ev.Content) > maxContent {
		return Announcement{}, fmt.Errorf("announce: content of %d bytes, at most %d", len(ev.Content), maxContent)
	}
	a := Announcement{Key: ev.PubKey, Created: time.Unix(ev.CreatedAt, 0), Load: NoLoad}
	if a.Created.After(now.Add(maxAhead)) {
		return Announcement{}, ErrFuture
	}
	if allow == nil {
		allow = func(string) bool { return false }
	}
	if err := a.read(ev.TagStrings(), allow); err != nil {
		return Announcement{}, err
	}
	if a.Expires.IsZero() {
		a.Expires = a.Created.Add(defaultLife)
	}
	if last := a.Created.Add(maxLife); a.Expires.After(last) {
		a.Expires = last
	}
	if !a.Expires.After(expiry) {
		return Announcement{}, ErrExpired
	}
	return a, nil
}

// read fills in what the tags say.
func (a *Announcement) read(tags [][]string, allow func(string) bool) error {
	if len(tags) > maxTags {
		return fmt.Errorf("announce: %d tags, at most %d", len(tags), maxTags)
	}
	seen := make(map[string]int)
	for _, tag := range tags {
		if len(tag) == 0 {
			continue
		}
		limit, known := tagLimits[tag[0]]
		if !known {
			continue
		}
		if seen[tag[0]]++; seen[tag[0]] > limit {
			return fmt.Errorf("announce: tag %q more than %d times", tag[0], limit)
		}
		size := 0
		for _, s := range tag {
			size += len(s)
		}
		if size > maxTagSize {
			return fmt.Errorf("announce: tag %q of %d bytes, at most %d", tag[0], size, maxTagSize)
		}
		if err := a.readTag(tag[0], tag[1:], allow); err != nil {
			return fmt.Errorf("announce: tag %q: %w", tag[0], err)
		}
	}
	return nil
}

// tagLimits are the tags that are read, and how often they may occur. Not
// written to.
var tagLimits = map[string]int{
	"d": 1, "relay": MaxRelays, "transport": MaxTransports, "ports": 1, "network": 1, "price": 1,
	"admission": 1, "software": 1, "version": 1, "load": 1, "contact": 1, "status": 1, "expiration": 1,
}

func (a *Announcement) readTag(tag string, values []string, allow func(string) bool) (err error) {
	switch tag {
	case "d":
		a.Instance, err = text(first(values), maxInstance)
	case "relay":
		a.readRelay(first(values), allow)
	case "transport":
		err = a.readTransport(values, allow)
	case "ports":
		a.Policy.Ports, err = readPorts(values)
	case "network":
		a.Policy.IPv4, a.Policy.IPv6 = slices.Contains(values, "ipv4"), slices.Contains(values, "ipv6")
	case "price":
		a.Policy.Price, err = readPrice(values)
	case "admission":
		a.Admission, err = text(first(values), maxWord)
	case "software":
		a.Software, err = text(first(values), maxText)
	case "version":
		a.Versions, err = readVersions(values)
	case "load":
		a.Load, err = number(first(values), 100)
	case "contact":
		a.Contact, err = text(first(values), maxText)
	case "status":
		a.Closed = first(values) == "closed"
	case "expiration":
		a.Expires, err = readTime(first(values))
	}
	return err
}

func readPorts(values []string) ([]PortRange, error) {
	if len(values) > maxPorts {
		return nil, fmt.Errorf("%d ranges, at most %d", len(values), maxPorts)
	}
	var ports []PortRange
	for _, v := range values {
		from, to, isRange := strings.Cut(v, "-")
		if !isRange {
			to = from
		}
		a, err := number(from, 65535)
		b, err2 := number(to, 65535)
		if err := errors.Join(err, err2); err != nil || a == 0 || b < a {
			return nil, errors.New("want ports or ranges of them, such as 1-1023")
		}
		ports = append(ports, PortRange{uint16(a), uint16(b)})
	}
	return ports, nil
}

func readPrice(values []string) (p Price, err error) {
	for len(values) < 3 {
		values = append(values, "")
	}
	for _, word := range values[:3] {
		if _, err := text(word, maxWord); err != nil {
			return Price{}, err
		}
	}
	whole, decimals, point := strings.Cut(values[0], ".")
	if !digits(whole) || point && !digits(decimals) {
		return Price{}, errors.New("want an amount in digits")
	}
	return Price{Amount: values[0], Currency: values[1], Per: values[2]}, nil
}

func readVersions(values []string) ([]int, error) {
	if len(values) > maxVersions {
		return nil, fmt.Errorf("%d versions, at most %d", len(values), maxVersions)
	}
	var versions []int
	for _, v := range values {
		n, err := number(v, maxVersion)
		if err != nil {
			return nil, err
		}
		versions = append(versions, n)
	}
	return versions, nil
}

// first returns the first value of a tag.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// CheckText says why a text, such as that of a contact, does not stand in an
// announcement.
func CheckText(s string) error {
	_, err := text(s, maxText)
	return err
}

// text checks text that people will see: of a stranger's, only what a terminal
// shows as it is.
func text(s string, limit int) (string, error) {
	if len(s) > limit {
		return "", fmt.Errorf("%d bytes, at most %d", len(s), limit)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return "", errors.New("text that cannot be printed")
		}
	}
	return s, nil
}

// number reads a decimal number from 0 to limit, in the one way to write it.
func number(s string, limit int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > limit || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("want a number from 0 to %d", limit)
	}
	return n, nil
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// readTime reads seconds since 1970.
func readTime(s string) (time.Time, error) {
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, errors.New("want seconds since 1970")
	}
	return time.Unix(seconds, 0), nil
}

// hexKey reads a public key as tags carry it.
func hexKey(s string) (key envelope.PublicKey, ok bool) {
	if len(s) != hex.EncodedLen(len(key)) || strings.ToLower(s) != s {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(s))
	return key, err == nil
}
