package admission

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

const (
	// lookEvery is how soon a change of the file by another process is noticed;
	// whoever greets meanwhile is judged by the file as it is.
	lookEvery = 250 * time.Millisecond
	// checkEvery is how soon the end of an invitation is.
	checkEvery = 15 * time.Second
	// Follow lists are fetched anew so often, or sooner as long as there are none.
	followsEvery  = time.Hour
	followsRetry  = time.Minute
	followsWithin = 30 * time.Second
)

// Watch has turnOut turn out those who may not stay, when the book has changed and
// as time goes by, until ctx ends. What is wrong with the file goes to log, once.
func (b *Book) Watch(ctx context.Context, turnOut func(why func(nostrlink.Client) error), log *slog.Logger) {
	look, check := time.NewTicker(lookEvery), time.NewTicker(checkEvery)
	defer look.Stop()
	defer check.Stop()
	complained := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			b.mu.Lock()
			_, err := b.refresh() // which tells
			b.mu.Unlock()
			if err != nil && err.Error() != complained {
				log.Warn("bans and invitations stay as they were", "err", err)
			}
			complained = ""
			if err != nil {
				complained = err.Error()
			}
			continue
		case <-check.C:
		case <-b.news:
		}
		turnOut(func(who nostrlink.Client) error { return b.Check(who, time.Now()) })
	}
}

// KeepFollows keeps the follow lists that the rules name up to date until ctx
// ends. When fetch fails, or finds less, the lists stay as they were.
func (b *Book) KeepFollows(ctx context.Context, fetch func(context.Context, []envelope.PublicKey) ([]announce.Follows, error), log *slog.Logger) {
	for ctx.Err() == nil {
		b.mu.Lock()
		authors := slices.Clone(b.rules.FollowsOf)
		if b.rules.Mode != Trust {
			authors = nil
		}
		b.mu.Unlock()
		wait := followsEvery
		if len(authors) > 0 {
			limited, cancel := context.WithTimeout(ctx, followsWithin)
			lists, err := fetch(limited, authors)
			cancel()
			b.SetFollows(lists)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				log.Warn("follow lists stay as they were", "err", err)
			}
			if err != nil || len(lists) < len(authors) {
				wait = followsRetry
			}
		}
		b.pause(ctx, wait)
	}
}

// pause waits, or until the rules change.
func (b *Book) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-b.ruled:
	}
}
