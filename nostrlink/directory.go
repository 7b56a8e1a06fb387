package nostrlink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// Directory looks for exits at the relays that the user has named, and asks no
// others: strangers cannot make it connect anywhere. All methods may be called
// concurrently.
type Directory struct {
	hub    *Hub
	relays []string
	log    *slog.Logger
}

// NewDirectory returns a directory of the exits that are announced at relays
// (URLs). log may be nil.
func (h *Hub) NewDirectory(relays []string, log *slog.Logger) *Directory {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Directory{hub: h, relays: relayURLs(relays), log: log}
}

// Bounds of looking.
const (
	maxListed  = 500 // announcements asked of one relay
	maxAuthors = 500 // in a filter
	// linger is how long announcements are waited for when a relay has sent
	// what it had: exits of the reference implementation announce again and
	// again, and relays do not keep that.
	linger = 300 * time.Millisecond
)

// Rule says whom the user trusts: exits, and people who follow exits (NIP-02).
type Rule struct {
	Listed    []envelope.PublicKey
	FollowsOf []envelope.PublicKey
}

// Found is what a Directory has found.
type Found struct {
	Exits  []announce.Entry // trusted ones first
	Trust  *announce.Trust  // the rule, with the follow lists as they are
	Failed []error          // why relays could not be asked, a line for each
}

// Look collects the announcements of all exits, at most a thousand, and the
// follow lists that rule names. It fails when no relay has answered.
func (d *Directory) Look(ctx context.Context, rule Rule) (*Found, error) {
	if len(d.relays) == 0 {
		return nil, errors.New("no relay is known to look for exits: name one with --relay wss://… or with relays in the section [up] of the configuration")
	}
	follows, _ := d.follows(ctx, rule.FollowsOf)
	found := &Found{Trust: announce.NewTrust(rule.Listed, follows)}
	book := announce.NewBook(announce.BookOptions{Admits: found.Trust.Admits, Allow: d.own})
	found.Failed = d.fill(ctx, book, authors(rule.Listed, follows))
	found.Exits = book.Snapshot(time.Now())
	if len(found.Failed) == len(d.relays) && len(found.Exits) == 0 {
		return nil, errors.Join(found.Failed...)
	}
	return found, nil
}

// Own reports whether the user has named all of the relays.
func (d *Directory) Own(relays []string) bool {
	return !slices.ContainsFunc(relays, func(url string) bool { return !d.own(url) })
}

// own reports whether the user has named a relay.
func (d *Directory) own(address string) bool {
	return slices.Contains(d.relays, relayURL(address))
}

// authors are those whom the user trusts, as many as one filter may hold.
func authors(listed []envelope.PublicKey, follows []announce.Follows) []string {
	var keys []string
	add := func(more []envelope.PublicKey) {
		for _, key := range more[:min(len(more), maxAuthors-len(keys))] {
			keys = append(keys, key.Hex())
		}
	}
	add(listed)
	for _, list := range follows {
		add(list.Keys)
	}
	return keys
}

// Follows fetches the newest follow list (NIP-02) of each author that a relay has
// one of. It fails when no relay has answered.
func (d *Directory) Follows(ctx context.Context, of []envelope.PublicKey) ([]announce.Follows, error) {
	lists, failed := d.follows(ctx, of)
	if len(of) > 0 && len(lists) == 0 && len(failed) == len(d.relays) {
		return nil, errors.Join(append(failed, errors.New("no relay could be asked for follow lists"))...)
	}
	return lists, nil
}

// follows fetches the newest follow lists of authors, and says why relays could
// not be asked.
func (d *Directory) follows(ctx context.Context, of []envelope.PublicKey) ([]announce.Follows, []error) {
	if len(of) == 0 {
		return nil, nil
	}
	newest := make(map[envelope.PublicKey]announce.Follows)
	var mu sync.Mutex
	failed := d.query(ctx, 0, []relay.Filter{{Kinds: []int{announce.KindFollows}, Authors: authors(of, nil)}},
		func(_ string, ev *envelope.Event) error {
			if !slices.Contains(of, ev.PubKey) {
				return nil
			}
			list, err := announce.ParseFollows(ev, time.Now())
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if old, ok := newest[list.Key]; !ok || old.Created.Before(list.Created) {
				newest[list.Key] = list
			}
			return nil
		})
	var lists []announce.Follows
	for _, key := range of {
		list, ok := newest[key]
		if !ok {
			d.log.Warn("no relay has the follow list: it admits nobody", "of", key.NPub())
			continue
		}
		lists = append(lists, list)
	}
	return lists, failed
}

// fill enters what the relays have into a book, and returns why they had
// nothing to say.
func (d *Directory) fill(ctx context.Context, book *announce.Book, authors []string) []error {
	most := maxListed
	filters := []relay.Filter{
		{Kinds: []int{envelope.KindAnnouncement}, Limit: &most},
		{Kinds: []int{kindDeletion}, Tags: map[string][]string{"k": {strconv.Itoa(envelope.KindAnnouncement)}}, Limit: &most},
	}
	if len(authors) > 0 { // strangers cannot crowd them out
		filters = append(filters, relay.Filter{Kinds: []int{envelope.KindAnnouncement}, Authors: authors})
	}
	// A deletion counts for what is known, whichever comes first.
	var mu sync.Mutex
	var deletions []*envelope.Event
	failed := d.query(ctx, linger, filters, func(url string, ev *envelope.Event) error {
		if ev.Kind == envelope.KindAnnouncement {
			return book.Add(ev, url, time.Now())
		}
		mu.Lock()
		defer mu.Unlock()
		if len(deletions) < maxListed*len(d.relays) {
			deletions = append(deletions, ev)
		}
		return nil
	})
	for _, ev := range deletions {
		book.Add(ev, "", time.Now()) // an old or foreign one changes nothing
	}
	return failed
}

// kindDeletion is a request to forget events. (NIP-09)
const kindDeletion = 5

// query asks all the relays at once, and returns why they could not be asked.
// each may be called concurrently; it may keep the event. When it returns an
// error that says that the event is forged, its relay is not listened to any
// more; other errors are about the event alone.
func (d *Directory) query(ctx context.Context, linger time.Duration, filters []relay.Filter, each func(relay string, ev *envelope.Event) error) []error {
	errs := make([]error, len(d.relays))
	var asking sync.WaitGroup
	for i, url := range d.relays {
		asking.Go(func() { errs[i] = d.ask(ctx, url, linger, filters, each) })
	}
	asking.Wait()
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func (d *Directory) ask(ctx context.Context, url string, linger time.Duration, filters []relay.Filter, each func(relay string, ev *envelope.Event) error) error {
	p, err := d.hub.acquire(url)
	if err != nil {
		return err
	}
	defer d.hub.release(p)
	if err := p.connect(ctx); err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	var forged error
	id := "look" + strconv.FormatUint(d.hub.searches.Add(1), 10)
	err = p.client.Query(ctx, id, filters, linger, func(raw []byte) {
		ev, err := envelope.ParseEvent(bytes.Clone(raw))
		if err == nil && forged == nil {
			err = each(p.url, &ev)
		}
		switch {
		case errors.Is(err, envelope.ErrID), errors.Is(err, envelope.ErrSignature):
			forged = fmt.Errorf("relay %s sends forged events (%w): do not use it", p.url, err)
			leave()
		case err != nil:
			d.log.Debug("an event that does not count", "relay", p.url, "author", ev.PubKey.NPub(), "err", err)
		}
	})
	if forged != nil {
		return forged
	}
	return err
}
