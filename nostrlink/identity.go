package nostrlink

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Client is who opened a session: by the identity that was proven in the
// handshake, or else by a key that was made up for it.
type Client struct {
	Key    envelope.PublicKey
	Proven bool
}

// An identity is proven by an event of kind 28334, which is never published: it
// travels inside a HELLO, sealed for the exit. Its tags name the exit's key, both
// throw-away keys and the nonce of that HELLO, so that it proves nothing to
// anybody else and at no other time.
func identityTags(exit, hello envelope.PublicKey, session wire.PublicKey, nonce wire.Nonce) [][]string {
	return [][]string{
		{"p", hex.EncodeToString(exit[:])}, {"hello", hex.EncodeToString(hello[:])},
		{"session", hex.EncodeToString(session[:])}, {"nonce", hex.EncodeToString(nonce[:])},
	}
}

// prove returns the proof of an identity for a greeting.
func (g *greeting) prove(identity envelope.SecretKey, now time.Time) (string, error) {
	event, _, err := envelope.Sign(nil, identity, envelope.Template{
		Kind: envelope.KindIdentity, CreatedAt: now,
		Tags: identityTags(g.exit, g.hello.Public(), wire.PublicKey(g.session.Public()), g.nonce),
	})
	return string(event), err
}

// errIdentity marks a HELLO whose proof of an identity is none.
var errIdentity = errors.New("the identity is not proven")

// proven returns the identity that a HELLO to exit proves.
func proven(exit, author envelope.PublicKey, h *wire.Hello) (envelope.PublicKey, error) {
	ev, err := envelope.ParseEvent([]byte(h.Identity))
	if err != nil {
		return envelope.PublicKey{}, fmt.Errorf("%w: %w", errIdentity, err)
	}
	if ev.Kind != envelope.KindIdentity {
		return envelope.PublicKey{}, fmt.Errorf("%w: an event of kind %d", errIdentity, ev.Kind)
	}
	want := identityTags(exit, author, h.SessionKey, h.Nonce)
	got := ev.TagStrings()
	if len(got) != len(want) {
		return envelope.PublicKey{}, fmt.Errorf("%w: it has %d tags", errIdentity, len(got))
	}
	for i := range want {
		if len(got[i]) != 2 || got[i][0] != want[i][0] || got[i][1] != want[i][1] {
			return envelope.PublicKey{}, fmt.Errorf("%w: it is for another exit or session", errIdentity)
		}
	}
	if err := ev.Verify(); err != nil {
		return envelope.PublicKey{}, fmt.Errorf("%w: %w", errIdentity, err)
	}
	return ev.PubKey, nil
}
