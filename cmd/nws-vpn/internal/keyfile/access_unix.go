//go:build unix

package keyfile

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const nonblock = syscall.O_NONBLOCK

// OpenToOthers reports whether anybody has access to a file, or its group may change it.
func OpenToOthers(info fs.FileInfo) bool { return info.Mode().Perm()&0o027 != 0 }

// checkAccess refuses a file that others can read or change.
func checkAccess(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 && !(isCredential(path) && mode&0o037 == 0) {
		return fmt.Errorf("key file: others have access to %s (mode %04o): run `chmod 600 %s`, and make a new key if somebody may have read it", path, mode, path)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("key file: cannot tell whose file %s is", path)
	}
	if uid := os.Geteuid(); int(st.Uid) != uid && st.Uid != 0 {
		return fmt.Errorf("key file: %s belongs to user %d, who can change it, and this runs as user %d: run `chown %d %s`", path, st.Uid, uid, uid, path)
	}
	return nil
}
