package announce

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Append appends the signed event of an announcement, made at now, to dst, and
// returns it with the event's id. It refuses what Parse would. Private relays
// are the operator's to announce.
func Append(dst []byte, key envelope.SecretKey, now time.Time, a Announcement) (event []byte, id [32]byte, err error) {
	now = now.Truncate(time.Second)
	if !a.Expires.After(now) || a.Expires.Sub(now) > maxLife {
		return dst, id, fmt.Errorf("announce: expires %v after it is made, want up to %v", a.Expires.Sub(now), maxLife)
	}
	a.Key = key.Public()
	a.Instance = a.instance()
	tags := a.tags()
	// Whoever reads it finds what was written.
	again := Announcement{Load: NoLoad}
	if err := again.read(tags, func(string) bool { return true }); err != nil {
		return dst, id, err
	}
	if again.LeftOut > 0 || len(again.Relays) != len(a.Relays) || len(again.Transports) != len(a.Transports) {
		return dst, id, fmt.Errorf("announce: a relay or transport of no known form, or twice: %q, %v", a.Relays, a.Transports)
	}
	return envelope.Sign(dst, key, envelope.Template{Kind: envelope.KindAnnouncement, CreatedAt: now, Tags: tags})
}

func (a *Announcement) instance() string {
	if a.Instance == "" {
		return DefaultInstance
	}
	return a.Instance
}

func (a *Announcement) tags() [][]string {
	tags := [][]string{{"d", a.Instance}}
	add := func(tag ...string) { tags = append(tags, tag) }
	if a.Closed {
		add("status", "closed")
	} else {
		host := name.Name{Key: a.Key, Relays: a.Relays}.Host()
		add("alt", "NWS exit node "+host)
		a.appendWays(add)
		a.Policy.appendTags(add)
		a.appendSelf(add)
	}
	add("expiration", strconv.FormatInt(a.Expires.Unix(), 10))
	return tags
}

func (a *Announcement) appendWays(add func(...string)) {
	for _, relay := range a.Relays {
		if url, err := name.Relay(relay); err == nil {
			relay = url
		}
		add("relay", relay)
	}
	for _, t := range a.Transports {
		add("transport", t.Kind, t.Address)
	}
}

func (p *Policy) appendTags(add func(...string)) {
	if len(p.Ports) > 0 {
		tag := []string{"ports"}
		for _, r := range p.Ports {
			tag = append(tag, r.String())
		}
		add(tag...)
	}
	if p.IPv4 || p.IPv6 {
		tag := []string{"network", "ipv4", "ipv6"}
		if !p.IPv6 {
			tag = tag[:2]
		}
		if !p.IPv4 {
			tag = slices.Delete(tag, 1, 2)
		}
		add(tag...)
	}
	if p.Price != (Price{}) {
		add("price", p.Price.Amount, p.Price.Currency, p.Price.Per)
	}
}

func (a *Announcement) appendSelf(add func(...string)) {
	if a.Admission != "" {
		add("admission", a.Admission)
	}
	if a.Software != "" {
		add("software", a.Software)
	}
	if len(a.Versions) > 0 {
		tag := []string{"version"}
		for _, v := range a.Versions {
			tag = append(tag, strconv.Itoa(v))
		}
		add(tag...)
	}
	if a.Load != NoLoad {
		add("load", strconv.Itoa(a.Load))
	}
	if a.Contact != "" {
		add("contact", a.Contact)
	}
}

// String writes one port as a number and more as first-last.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// String sums the policy up for people: "ipv4 ipv6, ports 1-24 26-65535, 5 SAT
// per GB". It is empty when nothing is said.
func (p Policy) String() string {
	var parts []string
	p.appendTags(func(tag ...string) {
		switch tag[0] {
		case "network":
			parts = append(parts, strings.Join(tag[1:], " "))
		case "ports":
			parts = append(parts, "ports "+strings.Join(tag[1:], " "))
		case "price":
			price := strings.TrimSpace(tag[1] + " " + tag[2])
			if tag[3] != "" {
				price += " per " + tag[3]
			}
			parts = append(parts, price)
		}
	})
	return strings.Join(parts, ", ")
}
