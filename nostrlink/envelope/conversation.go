package envelope

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/secp"
)

// ConversationKey is the secret two keys share (NIP-44 version 2). The zero
// value holds none. As with [SecretKey], copies share it and nothing prints it.
type ConversationKey struct{ k *[32]byte }

// Conversation computes the key that sk and pk share; both ends get the same.
// It costs a point multiplication: compute it once per peer. It fails when sk
// holds no key or pk is not a point of the curve.
func Conversation(sk SecretKey, pk PublicKey) (ConversationKey, error) {
	if sk.IsZero() {
		return ConversationKey{}, errNoKey
	}
	x, ok := secp.SharedX(&sk.k.d, (*[32]byte)(&pk))
	if !ok {
		return ConversationKey{}, errOffCurve
	}
	key, err := hkdf.Extract(sha256.New, x[:], []byte("nip44-v2"))
	clear(x[:])
	if err != nil {
		return ConversationKey{}, fmt.Errorf("envelope: conversation key: %w", err)
	}
	return ConversationKey{(*[32]byte)(key)}, nil
}

// Combine makes one key of two and of what was said when they were agreed on:
// who lacks one of the two, or saw another transcript, gets another key. Both
// ends must pass the two keys in the same order.
func Combine(a, b ConversationKey, transcript []byte) ConversationKey {
	if a.k == nil || b.k == nil {
		return ConversationKey{}
	}
	var both [64]byte
	copy(both[:32], a.k[:])
	copy(both[32:], b.k[:])
	key, err := hkdf.Key(sha256.New, both[:], []byte("nws session key"), string(transcript), 32)
	clear(both[:])
	if err != nil {
		return ConversationKey{}
	}
	return ConversationKey{(*[32]byte)(key)}
}

// IsZero reports whether ck holds no key.
func (ck ConversationKey) IsZero() bool { return ck.k == nil }

// Wipe overwrites the key in memory, in every copy of ck.
func (ck ConversationKey) Wipe() {
	if ck.k != nil {
		clear(ck.k[:])
	}
}

// String returns a placeholder.
func (ConversationKey) String() string { return "[secret]" }

// GoString returns a placeholder.
func (ConversationKey) GoString() string { return "[secret]" }

// LogValue returns a placeholder.
func (ConversationKey) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText always fails.
func (ConversationKey) MarshalText() ([]byte, error) { return nil, errNotMarshalled }
