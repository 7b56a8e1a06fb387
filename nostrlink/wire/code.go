package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// Code says why a stream or a session ended, or why it was refused. The values
// are the protocol's: they never change, and an unknown one is kept as it came.
type Code uint16

// The codes both ends know.
const (
	CodeNone            Code = 0  // no error: a session closed because its user was done
	CodeInternal        Code = 1  // the peer failed in a way it does not explain
	CodeRefused         Code = 2  // the destination refused the connection
	CodeHostUnreachable Code = 3  // no way to the destination's host
	CodeNetUnreachable  Code = 4  // no way to the destination's network
	CodeTimedOut        Code = 5  // no answer in time
	CodeReset           Code = 6  // the connection was reset
	CodeNameNotFound    Code = 7  // the destination's name does not exist
	CodeDenied          Code = 8  // the peer's policy forbids it
	CodeBusy            Code = 9  // a limit of the peer is reached; later it may work
	CodeUnsupported     Code = 10 // the peer does not know this network, version or type
	CodeProtocol        Code = 11 // the other end broke the protocol
	CodeFlowControl     Code = 12 // the other end sent more than its credit
	CodeGoingAway       Code = 13 // the peer is shutting down
	CodeCancelled       Code = 14 // whoever asked no longer wants it
)

var codeNames = [...]string{
	CodeNone:            "no error",
	CodeInternal:        "internal error",
	CodeRefused:         "connection refused",
	CodeHostUnreachable: "host unreachable",
	CodeNetUnreachable:  "network unreachable",
	CodeTimedOut:        "timed out",
	CodeReset:           "connection reset",
	CodeNameNotFound:    "name not found",
	CodeDenied:          "denied by policy",
	CodeBusy:            "too busy",
	CodeUnsupported:     "not supported",
	CodeProtocol:        "protocol error",
	CodeFlowControl:     "flow control error",
	CodeGoingAway:       "going away",
	CodeCancelled:       "cancelled",
}

// String gives the code in words, for people.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code " + strconv.Itoa(int(c))
}

// errno is what an application at the far side of the tunnel would have seen
// had it met the failure itself.
func (c Code) errno() syscall.Errno {
	switch c {
	case CodeRefused, CodeBusy:
		return syscall.ECONNREFUSED
	case CodeHostUnreachable, CodeNameNotFound:
		return syscall.EHOSTUNREACH
	case CodeNetUnreachable:
		return syscall.ENETUNREACH
	case CodeTimedOut:
		return syscall.ETIMEDOUT
	case CodeDenied:
		return syscall.EACCES
	case CodeUnsupported:
		return syscall.EOPNOTSUPP
	default:
		return syscall.ECONNRESET
	}
}

// Error is a code with an explanation, as it crosses the link. It unwraps to
// the syscall.Errno that an application would see for it, so that
// errors.Is(err, syscall.ECONNREFUSED) works at either end.
type Error struct {
	Code Code
	Text string // for people and logs; at most MaxText bytes on the wire; may be empty
}

var _ error = (*Error)(nil)

// Error gives the text if there is one, else the code in words. A text with
// anything unprintable in it is quoted: it comes from the peer.
func (e *Error) Error() string {
	switch {
	case e.Text == "":
		return e.Code.String()
	case !utf8.ValidString(e.Text) || strings.ContainsFunc(e.Text, notPrintable):
		return fmt.Sprintf("%s: %q", e.Code, e.Text)
	default:
		return e.Code.String() + ": " + e.Text
	}
}

func notPrintable(r rune) bool { return !unicode.IsPrint(r) }

// Unwrap gives the matching errno.
func (e *Error) Unwrap() error { return e.Code.errno() }

// CodeOf finds the code that tells the other end about err: the code of an
// *Error in err's chain, else the one that fits the failed lookup, errno or
// timeout in it, else CodeInternal. CodeOf(nil) is CodeNone.
func CodeOf(err error) Code {
	if err == nil {
		return CodeNone
	}
	if e := new(Error); errors.As(err, &e) {
		return e.Code
	}
	if e := new(net.DNSError); errors.As(err, &e) {
		return codeOfLookup(e)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return codeOfErrno(errno)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return CodeTimedOut
	case errors.Is(err, context.Canceled):
		return CodeCancelled
	case errors.Is(err, os.ErrPermission):
		return CodeDenied
	case errors.Is(err, net.ErrClosed):
		return CodeReset
	}
	if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		return CodeTimedOut
	}
	return CodeInternal
}

func codeOfLookup(e *net.DNSError) Code {
	switch {
	case e.IsNotFound:
		return CodeNameNotFound
	case e.IsTimeout:
		return CodeTimedOut
	default:
		return CodeHostUnreachable
	}
}

// AsError gives err as it is to be sent: itself when it is an *Error, else its
// code and its text cut to MaxText bytes. It is nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	e := new(Error)
	if !errors.As(err, &e) {
		e = &Error{Code: CodeOf(err), Text: err.Error()}
	}
	if len(e.Text) > MaxText {
		e = &Error{Code: e.Code, Text: cutText(e.Text)}
	}
	return e
}

// cutText shortens s to MaxText bytes without cutting a rune in two.
func cutText(s string) string {
	if len(s) <= MaxText {
		return s
	}
	n := MaxText
	for n > MaxText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
