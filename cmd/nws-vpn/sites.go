package main

import (
	"context"
	"log/slog"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tlssite"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// presentSites returns what dials for programs by next: next itself, or, when
// the user wants it, what presents .nostr sites to them. relays are the user's
// own.
func (t *tunnel) presentSites(next tlssite.Next, relays []string, book name.Book, cfg *config.Config, dirs stateDirs, log *slog.Logger) (tlssite.Next, error) {
	if !cfg.Up.TrustSites {
		return next, nil
	}
	authority, err := openAuthority(dirs)
	if err != nil {
		return nil, err
	}
	sites := tlssite.NewDialer(next, tlssite.Options{
		Authority: authority,
		Find: func(ctx context.Context, n name.Name) ([]*envelope.Event, error) {
			return findAttestations(ctx, t.hub, envelope.PublicKey(n.Key), certRelays(n, relays))
		},
		Names: book.Lookup,
		Log:   log,
	})
	t.defers(sites.Close)
	return sites, nil
}
