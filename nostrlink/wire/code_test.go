package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

func TestCodeOf(t *testing.T) {
	dial := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	for _, test := range []struct {
		err  error
		want Code
	}{
		{nil, CodeNone},
		{errors.New("anything"), CodeInternal},
		{&Error{Code: CodeBusy}, CodeBusy},
		{fmt.Errorf("dial: %w", &Error{Code: CodeDenied}), CodeDenied},
		{dial(syscall.ECONNREFUSED), CodeRefused},
		{dial(syscall.EHOSTUNREACH), CodeHostUnreachable},
		{dial(syscall.ENETUNREACH), CodeNetUnreachable},
		{dial(syscall.ETIMEDOUT), CodeTimedOut},
		{dial(syscall.ECONNRESET), CodeReset},
		{dial(syscall.EACCES), CodeDenied},
		{&net.DNSError{IsNotFound: true}, CodeNameNotFound},
		{&net.DNSError{IsTimeout: true}, CodeTimedOut},
		{&net.DNSError{Err: "server misbehaving"}, CodeHostUnreachable},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, CodeTimedOut},
		{context.DeadlineExceeded, CodeTimedOut},
		{context.Canceled, CodeCancelled},
		{os.ErrPermission, CodeDenied},
		{net.ErrClosed, CodeReset},
	} {
		if got := CodeOf(test.err); got != test.want {
			t.Errorf("CodeOf(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

// A code sent over the link and turned back into an error and a code stays what
// it is.
func TestCodeRoundTrip(t *testing.T) {
	for c := CodeRefused; c <= CodeReset; c++ {
		err := error(&Error{Code: c})
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			t.Errorf("%v unwraps to nothing", c)
		}
		if got := CodeOf(errno); got != c {
			t.Errorf("%v unwraps to %v, which is %v", c, errno, got)
		}
	}
	if !errors.Is(&Error{Code: CodeDenied}, os.ErrPermission) {
		t.Error("denied is not a permission error")
	}
}

func TestErrorText(t *testing.T) {
	for _, test := range []struct {
		err  Error
		want string
	}{
		{Error{Code: CodeRefused}, "connection refused"},
		{Error{Code: CodeRefused, Text: "port 81"}, "connection refused: port 81"},
		{Error{Code: CodeDenied, Text: "a\nlevel=error"}, `denied by policy: "a\nlevel=error"`},
		{Error{Code: CodeDenied, Text: "\xff"}, `denied by policy: "\xff"`},
		{Error{Code: 999}, "code 999"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestAsError(t *testing.T) {
	if AsError(nil) != nil {
		t.Error("AsError(nil) is an error")
	}
	long := strings.Repeat("ü", 300)
	for _, err := range []error{errors.New(long), &Error{Code: CodeBusy, Text: long}, errors.New("a" + long)} {
		e := AsError(err)
		if len(e.Text) > MaxText || len(e.Text) < MaxText-1 || !utf8.ValidString(e.Text) {
			t.Errorf("text of %d bytes: %q", len(e.Text), e.Text)
		}
		if e.Code != CodeOf(err) {
			t.Errorf("code %v, want %v", e.Code, CodeOf(err))
		}
	}
}
