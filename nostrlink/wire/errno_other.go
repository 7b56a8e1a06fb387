//go:build !windows

package wire

import "syscall"

// codeOfErrno maps what the kernel said of a dial or a connection.
func codeOfErrno(e syscall.Errno) Code {
	switch e {
	case syscall.ECONNREFUSED:
		return CodeRefused
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN:
		return CodeHostUnreachable
	case syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT:
		return CodeNetUnreachable
	case syscall.ETIMEDOUT, syscall.EAGAIN:
		return CodeTimedOut
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return CodeReset
	case syscall.EACCES, syscall.EPERM:
		return CodeDenied
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		return CodeBusy
	case syscall.EOPNOTSUPP, syscall.EPROTONOSUPPORT:
		return CodeUnsupported
	default:
		return CodeInternal
	}
}
