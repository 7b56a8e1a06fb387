//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package admission

import (
	"errors"
	"os"
	"syscall"
)

const (
	nofollow = syscall.O_NOFOLLOW
	nonblock = syscall.O_NONBLOCK
)

// tryLock locks an open file, and reports whether it could. Closing the file, or
// the end of the process, unlocks it.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}

// giveTo makes what root has created the property of the directory's owner.
func giveTo(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	// By hard links the owner could have root give him another file.
	var mine syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &mine); err != nil {
		return err
	}
	if mine.Mode&syscall.S_IFMT != syscall.S_IFREG || mine.Nlink != 1 {
		return errors.New("the file is not what it should be")
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
