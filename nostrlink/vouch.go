package nostrlink

import (
	"context"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// kindAuth is the answer to a relay's challenge. (NIP-42)
const kindAuth = 22242

func signChallenge(key envelope.SecretKey, url, challenge string) (event []byte, id [32]byte, err error) {
	return envelope.Sign(nil, key, envelope.Template{
		Kind:      kindAuth,
		CreatedAt: time.Now(),
		Tags:      [][]string{{"relay", url}, {"challenge", challenge}},
	})
}

// vouch proves to a relay of ours that we hold a session's key. The relay then
// verifies no signature of the session's events, and does not let others who
// subscribe to them hold them up. Relays of others get only the key that the hub
// authenticates with: many know one key for a connection, the last.
func (p *post) vouch(ctx context.Context, key envelope.SecretKey, log func(msg string, args ...any)) {
	select {
	case <-p.described:
	case <-ctx.Done():
		return
	}
	if p.info.Software != ourSoftware {
		return
	}
	err := p.client.Authenticate(ctx, func(_ context.Context, url, challenge string) ([]byte, [32]byte, error) {
		return signChallenge(key, url, challenge)
	})
	if err != nil && ctx.Err() == nil {
		log("cannot prove the session's key to the relay: it will verify every event", "relay", p.url, "err", err)
	}
}
