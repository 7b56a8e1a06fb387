package envelope

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nbd-wtf/go-nostr/nip19"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/secp"
)

var (
	errNoKey         = errors.New("envelope: no secret key given")
	errNotAKey       = errors.New("envelope: not a secret key: want 64 hex digits or nsec1…")
	errNotMarshalled = errors.New("envelope: a secret key is never marshalled; use NSec on purpose")
	errOffCurve      = errors.New("envelope: not a public key: no point of the curve has this x coordinate")
)

// SecretKey is a Nostr secret key together with its public key. The zero value
// holds none. Copies share the key, so that [SecretKey.Wipe] reaches them all.
//
// Whatever prints, logs or marshals a SecretKey, or a struct that holds one in
// an unexported field, sees no byte of it: fmt follows one pointer in places
// (for a verb that does not fit), but not two. Only NSec gives the key out.
type SecretKey struct{ k **secret }

type secret struct {
	d   secp.Scalar // as generated or parsed
	pub PublicKey   // x coordinate of d·G
	odd bool        // d·G has an odd y, so BIP-340 signs with -d
}

// GenerateSecretKey makes a new random key. Its error is always nil today:
// crypto/rand ends the process rather than giving bad randomness.
func GenerateSecretKey() (SecretKey, error) {
	var b [32]byte
	defer clear(b[:])
	for {
		rand.Read(b[:])
		if sk, err := newSecretKey(&b); err == nil {
			return sk, nil
		}
	}
}

// ParseSecretKey reads 64 hex digits or an nsec (NIP-19). Its errors never
// quote the input.
func ParseSecretKey(s string) (SecretKey, error) {
	if strings.HasPrefix(s, "nsec1") {
		_, v, err := nip19.Decode(s)
		if err != nil {
			return SecretKey{}, errors.New("envelope: not a valid nsec: mistyped or cut short")
		}
		s, _ = v.(string)
	}
	var b [32]byte
	defer clear(b[:])
	if len(s) != 64 {
		return SecretKey{}, errNotAKey
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return SecretKey{}, errNotAKey
	}
	return newSecretKey(&b)
}

func newSecretKey(b *[32]byte) (SecretKey, error) {
	k := new(secret)
	if overflow := k.d.SetBytes(b); overflow != 0 || k.d.IsZero() {
		return SecretKey{}, errors.New("envelope: not a secret key: zero or not below the group order")
	}
	k.pub, k.odd = secp.PublicKey(&k.d)
	return SecretKey{&k}, nil
}

// secret returns what sk holds, nil if that is nothing or has been wiped.
func (sk SecretKey) secret() *secret {
	if sk.k == nil || (*sk.k).d.IsZero() {
		return nil
	}
	return *sk.k
}

// Public returns the key that belongs to sk, also when that has been wiped, and
// all zeros when sk never held one.
func (sk SecretKey) Public() PublicKey {
	if sk.k == nil {
		return PublicKey{}
	}
	return (*sk.k).pub
}

// IsZero reports whether sk holds no key, or no longer.
func (sk SecretKey) IsZero() bool { return sk.secret() == nil }

// NSec gives the key out in NIP-19's form, for a key file. It is empty when sk
// holds none.
func (sk SecretKey) NSec() string {
	k := sk.secret()
	if k == nil {
		return ""
	}
	b := k.d.Bytes()
	defer clear(b[:])
	s, err := nip19.EncodePrivateKey(hex.EncodeToString(b[:]))
	if err != nil {
		return ""
	}
	return s
}

// Wipe overwrites the key in memory, in every copy of sk. It cannot reach what
// computations with it have left on stacks.
func (sk SecretKey) Wipe() {
	if sk.k != nil {
		(*sk.k).d.Zero()
	}
}

// String returns a placeholder.
func (SecretKey) String() string { return "[secret]" }

// GoString returns a placeholder.
func (SecretKey) GoString() string { return "[secret]" }

// LogValue returns a placeholder.
func (SecretKey) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText always fails.
func (SecretKey) MarshalText() ([]byte, error) { return nil, errNotMarshalled }

// PublicKey is the x coordinate of a point on secp256k1 (BIP-340). Not every
// value is one: [PublicKey.Check] tells.
type PublicKey [32]byte

// ParsePublicKey reads 64 hex digits or an npub (NIP-19) and checks that it is
// the x coordinate of a point.
func ParsePublicKey(s string) (PublicKey, error) {
	var pk PublicKey
	if strings.HasPrefix(s, "npub1") {
		_, v, err := nip19.Decode(s)
		if err != nil {
			return pk, errors.New("envelope: not a valid npub (mistyped?)")
		}
		s, _ = v.(string)
	}
	if len(s) != 64 {
		return pk, errors.New("envelope: not a public key: want 64 hex digits or npub1…")
	}
	if _, err := hex.Decode(pk[:], []byte(s)); err != nil {
		return PublicKey{}, fmt.Errorf("envelope: public key: %w", err)
	}
	if err := pk.Check(); err != nil {
		return PublicKey{}, err
	}
	return pk, nil
}

// Check returns an error unless pk is the x coordinate of a point.
func (pk PublicKey) Check() error {
	if !secp.OnCurve((*[32]byte)(&pk)) {
		return errOffCurve
	}
	return nil
}

// Hex returns the key in hexadecimal, as events carry it.
func (pk PublicKey) Hex() string { return hex.EncodeToString(pk[:]) }

// NPub returns the key in NIP-19's form.
func (pk PublicKey) NPub() string {
	s, err := nip19.EncodePublicKey(pk.Hex())
	if err != nil {
		return pk.Hex()
	}
	return s
}

// String returns the npub.
func (pk PublicKey) String() string { return pk.NPub() }

// MarshalText returns the key in hexadecimal.
func (pk PublicKey) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, pk[:]), nil }

// UnmarshalText reads what [ParsePublicKey] reads.
func (pk *PublicKey) UnmarshalText(text []byte) error {
	parsed, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*pk = parsed
	return nil
}
