//go:build unix

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noCore has the system write no core file of this process.
func noCore() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("keep the key out of core files: %w", err)
	}
	return nil
}
