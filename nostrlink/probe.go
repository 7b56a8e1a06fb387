package nostrlink

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// RelaysOf says where to reach an exit that the user has named without relays.
// That is at the user's own, unless the exit says, in its announcement or its
// relay list (NIP-65), that it listens elsewhere only. ctx bounds the asking.
func (d *Directory) RelaysOf(ctx context.Context, exit envelope.PublicKey) []string {
	book := announce.NewBook(announce.BookOptions{Allow: d.own})
	var mu sync.Mutex
	var list announce.RelayList
	d.query(ctx, 0, []relay.Filter{{
		Kinds: []int{envelope.KindAnnouncement, announce.KindRelayList}, Authors: []string{exit.Hex()},
	}}, func(url string, ev *envelope.Event) error {
		if ev.PubKey != exit {
			return nil
		}
		if ev.Kind == envelope.KindAnnouncement {
			return book.Add(ev, url, time.Now())
		}
		l, err := announce.ParseRelayList(ev, time.Now(), d.own)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && !l.Created.Before(list.Created) {
			list = l
		}
		return err
	})
	relays := list.Read
	if e, ok := book.Find(exit, time.Now()); ok && len(e.Relays) > 0 {
		relays = e.Relays
	}
	return d.reach(relays)
}

// reach chooses among the relays where an exit says it listens. The user's own
// are preferred: then nobody makes this machine connect elsewhere. They are
// all there is to try when the exit tells none.
func (d *Directory) reach(relays []string) []string {
	relays = relayURLs(relays)
	own := slices.DeleteFunc(slices.Clone(relays), func(url string) bool { return !d.own(url) })
	switch {
	case len(own) > 0:
		return own
	case len(relays) > 0:
		return relays
	}
	return d.relays
}

// Reach says over which relays to reach an announced exit.
func (d *Directory) Reach(e announce.Entry) []string {
	if len(e.Relays) == 0 && len(e.Seen) > 0 {
		return e.Seen
	}
	return d.reach(e.Relays)
}

// Bounds of probing.
const (
	maxProbes    = 8 // at a time
	probeTimeout = 5 * time.Second
)

// Probe measures how long a handshake with each exit takes, once its relays are
// connected. It tries several exits at once, each for at most five seconds; the
// sessions are closed again. An exit without sessions fails. done, or nil, is called with each outcome and its
// index, one at a time.
func (d *Directory) Probe(ctx context.Context, exits []announce.Entry, done func(i int, p announce.Probe)) []announce.Probe {
	probes := make([]announce.Probe, len(exits))
	slots := make(chan struct{}, maxProbes)
	var mu sync.Mutex
	var probing sync.WaitGroup
	for i, e := range exits {
		slots <- struct{}{}
		probing.Go(func() {
			defer func() { <-slots }()
			probes[i] = d.probe(ctx, e.Key, d.Reach(e))
			if done != nil {
				mu.Lock()
				defer mu.Unlock()
				done(i, probes[i])
			}
		})
	}
	probing.Wait()
	return probes
}

func (d *Directory) probe(ctx context.Context, exit envelope.PublicKey, relays []string) announce.Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	release, err := d.hub.warm(ctx, relays)
	defer release()
	if err != nil {
		return announce.Probe{Err: err}
	}
	link := d.hub.NewLink(exit, relays, LinkOptions{Mode: SessionOnly})
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	begun := time.Now()
	serving.Go(func() { link.Serve(ctx) })
	if err := link.Connect(ctx); err != nil {
		return announce.Probe{Err: err}
	}
	return announce.Probe{Time: max(time.Since(begun), 1)}
}

// warm returns when each of the relays is connected or has failed; the error
// says why the last one failed if all did. release, which is never nil, lets go
// of them.
func (h *Hub) warm(ctx context.Context, relays []string) (release func(), err error) {
	var posts []*post
	release = func() {
		for _, p := range posts {
			h.release(p)
		}
	}
	for _, url := range relays {
		p, e := h.acquire(url)
		if err = e; e == nil {
			posts = append(posts, p)
		}
	}
	results := make(chan error, len(posts))
	for _, p := range posts {
		go func() { results <- p.connect(ctx) }()
	}
	for range posts {
		select {
		case e := <-results:
			if e == nil {
				return release, nil
			}
			err = e
		case <-ctx.Done():
		}
	}
	return release, err
}
