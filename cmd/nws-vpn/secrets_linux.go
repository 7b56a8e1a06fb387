package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keepSecrets keeps the keys in this process's memory out of core files, and from
// other processes of the same user.
func keepSecrets() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep the key from other processes: %w", err)
	}
	return noCore()
}
