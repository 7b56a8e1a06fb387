package exit

import (
	"errors"
	"fmt"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Reason says why a request was not served. There are few of them, so that
// they can label a metric.
type Reason uint8

// The reasons.
const (
	ReasonMalformed    Reason = iota // the destination is neither a name nor an address
	ReasonSpecial                    // an address that is not public, disguised or not
	ReasonLocal                      // one of the exit's own addresses or networks
	ReasonMixed                      // a name with addresses of both kinds
	ReasonPolicy                     // the operator's rules deny it
	ReasonNoService                  // nothing behind that port of the exit's own name
	ReasonOtherExit                  // the name of another exit
	ReasonNameNotFound               // the name does not exist or has no address
	ReasonResolver                   // the exit's name servers did not answer
	ReasonRefused                    // the destination refused the connection
	ReasonUnreachable                // no way there
	ReasonTimedOut                   // no answer in time
	ReasonFailed                     // any other failure to connect
	ReasonCancelled                  // whoever asked has gone meanwhile
	ReasonBusy                       // a limit of the exit is reached
	ReasonLimit                      // a limit of the client is reached
	ReasonQuota                      // the client has used up its bytes
	ReasonNetwork                    // a network the exit does not know
	ReasonNoPing                     // the exit's system does not let it ping
	ReasonQueries                    // more DNS queries than the client may ask
	reasons
)

var reasonTable = [reasons]struct {
	name string
	code wire.Code
}{
	ReasonMalformed:    {"malformed", wire.CodeDenied},
	ReasonSpecial:      {"special_address", wire.CodeDenied},
	ReasonLocal:        {"local_address", wire.CodeDenied},
	ReasonMixed:        {"mixed_answer", wire.CodeDenied},
	ReasonPolicy:       {"policy", wire.CodeDenied},
	ReasonNoService:    {"no_service", wire.CodeRefused},
	ReasonOtherExit:    {"other_exit", wire.CodeDenied},
	ReasonNameNotFound: {"name_not_found", wire.CodeNameNotFound},
	ReasonResolver:     {"resolver", wire.CodeHostUnreachable},
	ReasonRefused:      {"refused", wire.CodeRefused},
	ReasonUnreachable:  {"unreachable", wire.CodeHostUnreachable},
	ReasonTimedOut:     {"timed_out", wire.CodeTimedOut},
	ReasonFailed:       {"failed", wire.CodeInternal},
	ReasonCancelled:    {"cancelled", wire.CodeCancelled},
	ReasonBusy:         {"busy", wire.CodeBusy},
	ReasonLimit:        {"limit", wire.CodeBusy},
	ReasonQuota:        {"quota", wire.CodeDenied},
	ReasonNetwork:      {"unknown_network", wire.CodeUnsupported},
	ReasonNoPing:       {"may_not_ping", wire.CodeDenied},
	ReasonQueries:      {"dns_limit", wire.CodeBusy},
}

// String gives the reason as one lower-case word for logs and metrics.
func (r Reason) String() string {
	if r < reasons {
		return reasonTable[r].name
	}
	return "unknown"
}

// Reasons lists all of them.
func Reasons() []Reason {
	all := make([]Reason, reasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Refusal is why a request was not served. It unwraps to the *wire.Error that
// the other end is told, and through that to the errno its application sees.
type Refusal struct {
	Reason Reason
	told   *wire.Error
	cause  error // or nil
}

func (r *Refusal) Error() string { return "exit: " + r.told.Text }

// Unwrap returns what the other end is told.
func (r *Refusal) Unwrap() error { return r.told }

// Cause is what the operator may know besides, and the other end is not told: why
// no name server answered. It is nil for all else.
func (r *Refusal) Cause() error { return r.cause }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, told: &wire.Error{Code: reasonTable[reason].code, Text: fmt.Sprintf(format, args...)}}
}

// refuseDial turns the failure to reach what into a refusal, if it is not one
// already. The text of err itself stays here: it may hold addresses of the
// exit.
func refuseDial(what string, err error) *Refusal {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return r
	}
	code := wire.CodeOf(err)
	reason := ReasonFailed
	switch code {
	case wire.CodeRefused, wire.CodeReset:
		reason = ReasonRefused
	case wire.CodeHostUnreachable, wire.CodeNetUnreachable:
		reason = ReasonUnreachable
	case wire.CodeTimedOut:
		reason = ReasonTimedOut
	case wire.CodeBusy:
		return refuse(ReasonBusy, "the exit has no sockets left: try again later")
	}
	return &Refusal{Reason: reason, told: &wire.Error{Code: code, Text: what + ": " + code.String()}}
}

// withCause is err for the operator: with what is behind a refusal.
func withCause(err error) error {
	if r := (*Refusal)(nil); errors.As(err, &r) && r.cause != nil {
		return fmt.Errorf("%w: %w", err, r.cause)
	}
	return err
}

// reasonOf returns the reason of a refusal, ReasonFailed for another error.
func reasonOf(err error) Reason {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return r.Reason
	}
	return ReasonFailed
}
