package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// relayRemedy says what helps when a hop to a relay fails.
func relayRemedy(hop string, err error) string {
	switch hop {
	case HopName:
		return nameRemedy(err)
	case HopConnection:
		return connectionRemedy(err)
	case HopTLS:
		return tlsRemedy(err)
	case HopWebsocket:
		if timedOut(err) {
			return "the relay, or something before it, takes connections and does not serve them: try again, or use another relay"
		}
		return "check that this is the URL of a Nostr relay, or use another relay"
	}
	if timedOut(err) {
		return "the relay takes connections and leaves questions unanswered: use another relay"
	}
	return "the relay refuses this client, for the reason it gives: use another relay"
}

func nameRemedy(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return "check the spelling of the relay's URL; if it is right, the network's DNS server hides or has lost the name: use another relay, or the relay's address"
	}
	return "the network's DNS server does not answer: check that this machine is online, and that a sign-in page of the network does not wait for you"
}

func connectionRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: check the port in the relay's URL, ask its operator whether it runs, or use another relay"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "a packet filter on this machine forbids it: if no tunnel is up, `nws-vpn repair` removes what one has left; else look at your own firewall's rules"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no way there: check that this machine is online; if no tunnel is up, `nws-vpn repair` removes what one has left"
	case timedOut(err):
		return "the network drops it: try a relay at port 443, or another network"
	}
	return "use another relay, or another network"
}

func tlsRemedy(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		return "nobody this machine trusts vouches for that certificate: the network may be intercepting TLS (a sign-in page, a company's proxy), or the relay's certificate is its own; do not ignore this"
	case errors.As(err, &hostname):
		return "the certificate is another host's: the DNS server or the network sends you elsewhere; do not ignore this"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "check this machine's clock first; if it is right, the relay's operator has to renew the certificate"
	case errors.As(err, &record):
		return "what answers there does not speak TLS: is the URL to begin with ws:// instead?"
	case timedOut(err):
		return "the relay, or something before it, takes connections and does not serve them: try again, or use another relay"
	}
	return "something on the way breaks TLS off: use another relay, or another network"
}

// exitRemedy says what helps when a hop at the exit fails.
func exitRemedy(hop string, err error, f *Found) string {
	switch hop {
	case HopChoice:
		return "" // the error says it
	case HopHandshake:
		if !slices.ContainsFunc(f.Relays, func(r Relay) bool { return r.Up() }) {
			return "mend the way to a relay first"
		}
		switch {
		case complainsOfClock(err.Error()):
			return "set this machine's clock"
		case errors.Is(err, syscall.EACCES):
			return "the exit answers and does not let you in, for the reason it gives: ask its operator for an invitation, which `nws-vpn join` takes, or set identity_file if it knows an identity of yours; `nws-vpn exits` lists others"
		case errors.Is(err, syscall.ECONNREFUSED):
			return "the exit answers and has no room for you now, for the reason it gives: try again later, or use another exit"
		}
		return "check that the exit runs and listens on a relay of yours, and that its key is right; `nws-vpn exits` lists others"
	case HopResolver:
		return "the exit answers, but what resolves names there does not: tell its operator, or use another exit"
	}
	if names := f.Exit.step(HopResolver); names != nil && names.Err != nil {
		return "the exit answers, but is cut off from the internet itself: tell its operator, or use another exit"
	}
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "the exit's policy does not admit that, or it gives you no more, as it says: name another destination with --target, or ask its operator"
	case strings.Contains(err.Error(), wireBusy):
		return "a limit of the exit is reached, the one it names: try again later, or ask its operator"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the exit works and the destination refuses: name another one with --target"
	}
	return "the exit does not get to that destination: name another one with --target; if that fails too, the exit is cut off from the internet"
}

// wireBusy is how errors of a limit at the exit begin. Their errno is that of a
// destination that refuses.
const wireBusy = "too busy"

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
