// Package invite reads and writes invitations to an exit: one string, to be sent
// by any way that is private, or shown as a QR code.
//
//	nwsvpn1<base 32>
//
// Case does not matter, and blanks and line ends are ignored. The base 32 (RFC
// 4648, without padding) holds
//
//	1   version, 1
//	32  the exit's public key
//	16  the token
//	1+n a petname for the exit, behind its length; may be empty
//	1   the number of relays, and for each
//	1+n its URL, behind its length
//	4   the first bytes of the SHA-256 of "nws-vpn invite\n" and all before
//
// The token is a secret: errors never repeat a text that was to be read.
package invite

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

const (
	prefix   = "nwsvpn1"
	version  = 1
	checksum = 4

	maxText   = 4096
	maxRelays = 8
)

// Token is the secret of an invitation.
type Token [16]byte

// NewToken makes one.
func NewToken() (t Token) {
	rand.Read(t[:])
	return t
}

// Text is the token as it is shown to the exit, in a HELLO.
func (t Token) Text() string { return hex.EncodeToString(t[:]) }

// String keeps the token out of logs.
func (t Token) String() string { return "token" }

// ParseToken reads what Text has written.
func ParseToken(text string) (t Token, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(t) || hex.EncodeToString(b) != text {
		return t, errors.New("invite: not a token")
	}
	return Token(b), nil
}

// Invite is an invitation. Who reads one must not believe it more than whoever
// it came from: its relays may be anywhere.
type Invite struct {
	Exit  name.Name // with the relays where it listens, at most eight
	Token Token
	As    string // what to call the exit, a petname; or empty
}

var b32 = base32.StdEncoding.WithPadding(base32.NoPadding)

// Encode writes an invitation. It fails when that could not be read again.
func (i Invite) Encode() (string, error) {
	if err := i.check(); err != nil {
		return "", err
	}
	b := append([]byte{version}, i.Exit.Key[:]...)
	b = append(b, i.Token[:]...)
	b = appendText(b, i.As)
	b = append(b, byte(len(i.Exit.Relays)))
	for _, relay := range i.Exit.Relays {
		b = appendText(b, relay)
	}
	text := prefix + strings.ToLower(b32.EncodeToString(append(b, sum(b)...)))
	if len(text) > maxText {
		return "", fmt.Errorf("invite: longer than %d characters: name fewer relays", maxText)
	}
	return text, nil
}

func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

func sum(b []byte) []byte {
	h := sha256.Sum256(append([]byte("nws-vpn invite\n"), b...))
	return h[:checksum]
}

// check holds for what is written and for what is read.
func (i *Invite) check() error {
	if err := envelope.PublicKey(i.Exit.Key).Check(); err != nil {
		return errors.New("invite: the exit's key is none")
	}
	if i.Token == (Token{}) {
		return errors.New("invite: it has no token")
	}
	if len(i.Exit.Relays) == 0 || len(i.Exit.Relays) > maxRelays {
		return fmt.Errorf("invite: with %d relays, 1 to %d are allowed", len(i.Exit.Relays), maxRelays)
	}
	for n, relay := range i.Exit.Relays {
		if canonical, err := name.Relay(relay); err != nil || canonical != relay {
			return fmt.Errorf("invite: relay %d is not the address of one, as it is usually written", n+1)
		}
	}
	if i.As == "" {
		return nil
	}
	if err := name.CheckPetname(i.As); err != nil {
		return fmt.Errorf("invite: the name for the exit: %w", err)
	}
	return nil
}

var errDamaged = errors.New("invite: damaged: copy all of it, or scan the code again")

// Parse reads an invitation.
func Parse(text string) (Invite, error) {
	if len(text) > 2*maxText {
		return Invite{}, fmt.Errorf("invite: longer than %d characters", maxText)
	}
	text = strings.ToLower(strings.Join(strings.Fields(text), ""))
	text, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return Invite{}, errors.New("invite: this is no invitation, which begins with " + prefix)
	}
	b, err := b32.DecodeString(strings.ToUpper(text))
	if err != nil || strings.ToLower(b32.EncodeToString(b)) != text || len(b) < checksum+1 {
		return Invite{}, errDamaged
	}
	b, check := b[:len(b)-checksum], b[len(b)-checksum:]
	if !bytes.Equal(sum(b), check) {
		return Invite{}, errDamaged
	}
	if b[0] != version {
		return Invite{}, fmt.Errorf("invite: of version %d, which this program does not know: update it", b[0])
	}
	i, err := parseBody(b[1:])
	if err != nil {
		return Invite{}, err
	}
	return i, i.check()
}

var errCut = errors.New("invite: cut short")

func parseBody(b []byte) (i Invite, err error) {
	if len(b) < len(i.Exit.Key)+len(i.Token) {
		return i, errCut
	}
	b = b[copy(i.Exit.Key[:], b):]
	b = b[copy(i.Token[:], b):]
	if i.As, b, err = parseText(b); err != nil {
		return i, err
	}
	if len(b) == 0 {
		return i, errCut
	}
	n := int(b[0])
	b = b[1:]
	if n > maxRelays {
		return i, fmt.Errorf("invite: with %d relays, 1 to %d are allowed", n, maxRelays)
	}
	for range n {
		var relay string
		if relay, b, err = parseText(b); err != nil {
			return i, err
		}
		i.Exit.Relays = append(i.Exit.Relays, relay)
	}
	if len(b) > 0 {
		return i, errors.New("invite: something follows it")
	}
	return i, nil
}

func parseText(b []byte) (string, []byte, error) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return "", nil, errCut
	}
	n := int(b[0])
	return string(b[1 : 1+n]), b[1+n:], nil
}
