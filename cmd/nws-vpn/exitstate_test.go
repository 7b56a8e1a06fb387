//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestStateDirectoriesOfOthersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to give a directory away")
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := openExitState(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := openExitState(dir); err == nil {
		t.Error("a directory that another user can write to is taken")
	}
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if err := openExitState(dir); err == nil {
		t.Error("a directory that a group can write to is taken")
	}
}
