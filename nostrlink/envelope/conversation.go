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
type ConversationKey struct{ k **[32]byte }

// Conversation computes the key that sk and pk share; both ends get the same.
// It costs a point multiplication: compute it once per peer. It fails when sk
// holds no key or pk is not a point of the curve.
func Conversation(sk SecretKey, pk PublicKey) (ConversationKey, error) {
	k := sk.secret()
	if k == nil {
		return ConversationKey{}, errNoKey
	}
	x, ok := secp.SharedX(&k.d, (*[32]byte)(&pk))
	if !ok {
		return ConversationKey{}, errOffCurve
	}
	key, err := hkdf.Extract(sha256.New, x[:], []byte("nip44-v2"))
	clear(x[:])
	if err != nil {
		return ConversationKey{}, fmt.Errorf("envelope: conversation key: %w", err)
	}
	return conversationKey((*[32]byte)(key)), nil
}

// Combine makes one key of two and of what was said when they were agreed on:
// who lacks one of the two, or saw another transcript, gets another key. Both
// ends must pass the two keys in the same order.
func Combine(a, b ConversationKey, transcript []byte) ConversationKey {
	ka, kb := a.bytes(), b.bytes()
	if ka == nil || kb == nil {
		return ConversationKey{}
	}
	var both [64]byte
	copy(both[:32], ka[:])
	copy(both[32:], kb[:])
	key, err := hkdf.Key(sha256.New, both[:], []byte("nws session key"), string(transcript), 32)
	clear(both[:])
	if err != nil {
		return ConversationKey{}
	}
	return conversationKey((*[32]byte)(key))
}

// Derive makes a secret for another purpose of the key, which it tells nothing
// of. It is the zero value if the key is.
func (ck ConversationKey) Derive(purpose string) (secret [32]byte) {
	k := ck.bytes()
	if k == nil {
		return secret
	}
	derived, err := hkdf.Key(sha256.New, k[:], []byte("nws derived key"), purpose, len(secret))
	if err != nil {
		return [32]byte{}
	}
	return [32]byte(derived)
}

func conversationKey(k *[32]byte) ConversationKey { return ConversationKey{&k} }

// bytes returns the key, nil if ck holds none or it has been wiped.
func (ck ConversationKey) bytes() *[32]byte {
	if ck.k == nil || **ck.k == ([32]byte{}) {
		return nil
	}
	return *ck.k
}

// IsZero reports whether ck holds no key, or no longer.
func (ck ConversationKey) IsZero() bool { return ck.bytes() == nil }

// Wipe overwrites the key in memory, in every copy of ck.
func (ck ConversationKey) Wipe() {
	if ck.k != nil {
		clear((*ck.k)[:])
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
