package announce

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Publisher makes the events by which one exit announces itself. It only keeps
// the order of their times: of two events with the same second, relays keep
// either. It is not for concurrent use.
type Publisher struct {
	key  envelope.SecretKey
	last time.Time
}

// Event is a signed event, ready to be published.
type Event struct {
	JSON []byte
	ID   [32]byte
}

// An announcement counts for minLifetime to maxLifetime, and the next one is
// made when between a half and three quarters of that have gone by.
const (
	minLifetime = 5 * time.Minute
	maxLifetime = 6 * time.Minute
	// closedLife is how long the replacement stays that takes one back.
	closedLife = time.Minute
)

// kindDeletion is a request to forget events. (NIP-09)
const kindDeletion = 5

// NewPublisher returns a publisher for the exit with that key.
func NewPublisher(key envelope.SecretKey) *Publisher { return &Publisher{key: key} }

// Announce returns the announcement to publish at now, and when to announce
// again. random, from 0 up to 1, spreads both, so that exits that were started
// together do not publish together; it should be another number each time. a's
// times and key are set here.
func (p *Publisher) Announce(now time.Time, random float64, a Announcement) (ev Event, next time.Time, err error) {
	random = min(max(random, 0), 1)
	life := minLifetime + time.Duration(random*float64(maxLifetime-minLifetime))
	at := p.tick(now)
	a.Expires = at.Add(life).Truncate(time.Second)
	if ev.JSON, ev.ID, err = Append(nil, p.key, at, a); err != nil {
		return Event{}, now, err
	}
	p.last = at
	return ev, now.Add(life/2 + time.Duration(random*float64(life)/4)), nil
}

// Withdraw returns the events that take the announcement of an instance back,
// in the order to publish them: a replacement without content, for those who
// listen and for relays that know nothing of deletions, and a deletion. There is
// nothing to take back, and no event, unless Announce has made one.
func (p *Publisher) Withdraw(now time.Time, instance string) ([]Event, error) {
	if p.last.IsZero() {
		return nil, nil
	}
	at := p.tick(now)
	a := Announcement{Instance: instance, Closed: true, Expires: at.Add(closedLife), Load: NoLoad}
	closed, id, err := Append(nil, p.key, at, a)
	if err != nil {
		return nil, err
	}
	events := []Event{{closed, id}}
	deletion, id, err := envelope.Sign(nil, p.key, envelope.Template{
		Kind:      kindDeletion,
		CreatedAt: at,
		Tags: [][]string{
			{"a", address(p.key.Public(), a.instance())},
			{"k", strconv.Itoa(envelope.KindAnnouncement)},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("announce: deletion: %w", err)
	}
	p.last = at
	return append(events, Event{deletion, id}), nil
}

// tick is the time for an event made at now: later than the last one's.
func (p *Publisher) tick(now time.Time) time.Time {
	now = now.Truncate(time.Second)
	if !now.After(p.last) {
		return p.last.Add(time.Second)
	}
	return now
}

// address is how a deletion calls an announcement. (NIP-01)
func address(key envelope.PublicKey, instance string) string {
	return fmt.Sprintf("%d:%s:%s", envelope.KindAnnouncement, key.Hex(), instance)
}
