//go:build unix

package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLogIsOurs: what others have a hand in is not written to, and not even made.
func TestLogIsOurs(t *testing.T) {
	const stranger = 65534
	tests := []struct {
		name      string
		asRoot    bool
		prepare   func(t *testing.T, dir, other string) error // other is a file elsewhere
		wantError bool
	}{
		{name: "new directory", prepare: func(_ *testing.T, dir, _ string) error {
			return os.Remove(dir)
		}},
		{name: "log from before", prepare: func(_ *testing.T, dir, _ string) error {
			return os.WriteFile(filepath.Join(dir, logName), []byte("before\n"), 0o600)
		}},
		{name: "directory that others can write to", prepare: func(_ *testing.T, dir, _ string) error {
			return os.Chmod(dir, 0o777)
		}, wantError: true},
		{name: "directory of another user", asRoot: true, prepare: func(_ *testing.T, dir, _ string) error {
			return os.Chown(dir, stranger, stranger)
		}, wantError: true},
		{name: "another user's link to a directory of ours", asRoot: true, prepare: func(_ *testing.T, dir, other string) error {
			return errors.Join(os.Remove(dir), os.Symlink(filepath.Dir(other), dir), os.Lchown(dir, stranger, stranger))
		}, wantError: true},
		{name: "link in the place of the log", prepare: func(_ *testing.T, dir, other string) error {
			return os.Symlink(other, filepath.Join(dir, logName))
		}, wantError: true},
		{name: "pipe in the place of the log", prepare: func(_ *testing.T, dir, _ string) error {
			return unix.Mkfifo(filepath.Join(dir, logName), 0o600)
		}, wantError: true},
		{name: "another user's log", asRoot: true, prepare: func(_ *testing.T, dir, _ string) error {
			path := filepath.Join(dir, logName)
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, stranger, stranger))
		}, wantError: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.asRoot && os.Geteuid() != 0 {
				t.Skip("needs root: to give a file away")
			}
			dir, other := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "other")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(other, []byte("theirs"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := tt.prepare(t, dir, other); err != nil {
				t.Fatal(err)
			}
			_, before := os.Lstat(filepath.Join(dir, logName))
			log, err := openLog(dir)
			if (err != nil) != tt.wantError {
				t.Fatalf("openLog: %v", err)
			}
			if !tt.wantError {
				defer log.Close()
				if _, err := log.WriteString("line\n"); err != nil {
					t.Error(err)
				}
				return
			}
			if _, err := os.Lstat(filepath.Join(dir, logName)); errors.Is(before, fs.ErrNotExist) && !errors.Is(err, fs.ErrNotExist) {
				t.Error("the log was made")
			}
			if text, err := os.ReadFile(other); err != nil || string(text) != "theirs" {
				t.Errorf("the file elsewhere: %q, %v", text, err)
			}
		})
	}
}

// A parent hears how starting went also when its child has begun anew meanwhile,
// and what comes later has nobody to tell.
func TestReadinessOutlivesAReload(t *testing.T) {
	t.Setenv(detachedEnv, "1")
	t.Setenv(restartedEnv, "1")
	t.Setenv(readyEnv, "")
	heard, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	first := &readiness{pipe}
	if err := first.leave(); err != nil {
		t.Fatal(err)
	}
	pipe.Close() // as when another program is executed
	second := openReadiness()
	second.tell(wordReady)
	if words, err := io.ReadAll(heard); err != nil || string(words) != wordReady+"\n" {
		t.Errorf("the parent hears %q, %v", words, err)
	}
	for range 2 { // reloads
		if err := second.leave(); err != nil {
			t.Fatal(err)
		}
		if second = openReadiness(); second != nil {
			t.Error("a parent that has heard all is told more")
		}
	}
}
