package relay

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// RefusedError is a relay's no to a subscription, in its own words.
type RefusedError struct {
	URL    string
	Reason string // as the relay wrote it, usually with a prefix: "auth-required: …"
	// NoSigner tells that the relay asked for authentication (NIP-42) and no
	// Options.Auth was given.
	NoSigner bool
}

func (e *RefusedError) Error() string {
	hint := ""
	if e.NoSigner {
		hint = "; it asks its clients to authenticate (NIP-42) and no key was given for that: use another relay"
	}
	return fmt.Sprintf("relay %s: refused the subscription: %s%s", e.URL, describe(e.Reason), hint)
}

// silentError is for a relay that was reached and then fell silent.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

// fellSilent reports whether an error tells of a relay that was reached and then
// fell silent. A path that passes only small packets looks like that, too.
func fellSilent(err error) bool {
	return errors.As(err, new(silentError)) || errors.Is(err, ws.ErrSilent)
}

// Reasons with which this package, and not the relay, gives the verdict on a
// publish.
const (
	// ReasonTimeout begins the reason when no OK came in time. The event may
	// have been delivered nevertheless.
	ReasonTimeout = "timeout"
	// ReasonDisconnected begins the reason when the connection ended before the
	// OK. The event may have been delivered nevertheless.
	ReasonDisconnected = "disconnected"
)

// Prefix returns the machine-readable word before the first colon of a relay's
// reason (NIP-01: "duplicate", "pow", "blocked", "rate-limited", "invalid",
// "restricted", "mute", "error"; NIP-42: "auth-required"), or "".
func Prefix(reason string) string {
	word, _, found := strings.Cut(reason, ":")
	if !found || strings.ContainsAny(word, " \t\n") {
		return ""
	}
	return word
}

// describe makes a text from a relay fit for an error or a log line.
func describe(text string) string {
	if text == "" {
		return "no reason given"
	}
	return shorten(text)
}

// maxText bounds what is kept of a text that a relay wrote.
const maxText = 256

func shorten(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}
