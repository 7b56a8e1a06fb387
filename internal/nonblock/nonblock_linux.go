package nonblock

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads once into p.
func Read(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return call(syscall.SYS_READ, fd, unsafe.Pointer(&p[0]), len(p))
}

// Readv reads once and fills bufs one after the other.
func Readv(fd uintptr, bufs [][]byte) (int, error) { return vectors(syscall.SYS_READV, fd, bufs) }

// Writev writes bufs, one after the other, or the beginning of them.
func Writev(fd uintptr, bufs [][]byte) (int, error) { return vectors(syscall.SYS_WRITEV, fd, bufs) }

// maxVectors is what the kernel takes in one call, UIO_MAXIOV.
const maxVectors = 1024

func vectors(number, fd uintptr, bufs [][]byte) (int, error) {
	var few [32]unix.Iovec
	list := few[:0]
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if len(list) == maxVectors {
			break
		}
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		list = append(list, v)
	}
	if len(list) == 0 {
		return 0, nil
	}
	return call(number, fd, unsafe.Pointer(&list[0]), len(list))
}

func call(number, fd uintptr, p unsafe.Pointer, n int) (int, error) {
	for {
		done, _, errno := syscall.RawSyscall(number, fd, uintptr(p), uintptr(n))
		switch errno {
		case 0:
			return int(done), nil
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}
