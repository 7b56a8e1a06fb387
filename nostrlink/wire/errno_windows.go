package wire

import "syscall"

// Winsock's own numbers: the constants of package syscall with POSIX names are
// invented on Windows and no socket ever returns them, but our own Error does.
const (
	wsaEACCES        syscall.Errno = 10013
	wsaEMFILE        syscall.Errno = 10024
	wsaEOPNOTSUPP    syscall.Errno = 10045
	wsaEAFNOSUPPORT  syscall.Errno = 10047
	wsaEADDRNOTAVAIL syscall.Errno = 10049
	wsaENETDOWN      syscall.Errno = 10050
	wsaENETUNREACH   syscall.Errno = 10051
	wsaECONNABORTED  syscall.Errno = 10053
	wsaECONNRESET    syscall.Errno = 10054
	wsaENOBUFS       syscall.Errno = 10055
	wsaETIMEDOUT     syscall.Errno = 10060
	wsaECONNREFUSED  syscall.Errno = 10061
	wsaEHOSTDOWN     syscall.Errno = 10064
	wsaEHOSTUNREACH  syscall.Errno = 10065
)

// codeOfErrno maps what the kernel said of a dial or a connection.
func codeOfErrno(e syscall.Errno) Code {
	switch e {
	case wsaECONNREFUSED, syscall.ECONNREFUSED:
		return CodeRefused
	case wsaEHOSTUNREACH, wsaEHOSTDOWN, syscall.EHOSTUNREACH:
		return CodeHostUnreachable
	case wsaENETUNREACH, wsaENETDOWN, wsaEADDRNOTAVAIL, wsaEAFNOSUPPORT, syscall.ENETUNREACH:
		return CodeNetUnreachable
	case wsaETIMEDOUT, syscall.ETIMEDOUT:
		return CodeTimedOut
	case wsaECONNRESET, wsaECONNABORTED, syscall.ECONNRESET:
		return CodeReset
	case wsaEACCES, syscall.EACCES:
		return CodeDenied
	case wsaEMFILE, wsaENOBUFS:
		return CodeBusy
	case wsaEOPNOTSUPP, syscall.EOPNOTSUPP:
		return CodeUnsupported
	default:
		return CodeInternal
	}
}
