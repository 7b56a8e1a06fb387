package platform

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openStateDir makes the state directory, and refuses one that others could
// have put a journal into: what it says is done as root.
func openStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("platform: make the state directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("platform: look at the state directory %s: %w", dir, err)
	}
	if uid := int(st.Uid); (uid != os.Geteuid() && uid != 0) || st.Mode&0o022 != 0 {
		return fmt.Errorf("platform: the state directory %s can be written by others (owner %d, mode %04o): use one of your own with mode 0700", dir, uid, st.Mode&0o7777)
	}
	return nil
}

// lockName is that of the file in the state directory that its process has locked.
const lockName = "lock"

// lock takes the state directory for this process. It is released by closing
// the file, or by the kernel when the process dies.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("platform: lock the state directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		b, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		f.Close()
		return nil, &LockedError{Dir: dir, PID: pid}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("platform: lock the state directory %s: %w", dir, err)
	}
	// For the message of the next one only; a full disk is no reason to stop.
	if n, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err == nil {
		_ = f.Truncate(int64(n))
	}
	return f, nil
}
