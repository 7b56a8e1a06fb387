package admission

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// load reads the file. One that does not exist holds nothing.
func load(path string) (*state, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0) // a pipe must not hold us up
	if errors.Is(err, fs.ErrNotExist) {
		return newState(), nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("admission: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("admission: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("admission: %s is not a regular file", path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return nil, nil, fmt.Errorf("admission: %s can be written by others: chmod 600 it, and look at what is in it", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("admission: %w", err)
	}
	s, err := decode(text)
	if err != nil {
		return nil, nil, fmt.Errorf("admission: %s: %w: put it right, or delete it and with it all bans and invitations", path, err)
	}
	return s, info, nil
}

// store replaces the file. It belongs to whom its directory belongs to, so that
// root may do this for an exit that is not root.
func store(path string, s *state) (_ fs.FileInfo, err error) {
	text, err := s.encode()
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".admission-*") // with mode 0600
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("admission: the file cannot be written: %w", err)
		}
	}()
	if err = giveTo(f, dir); err != nil {
		return nil, err
	}
	if _, err = f.Write(text); err != nil {
		return nil, err
	}
	if err = f.Sync(); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err = f.Close(); err != nil {
		return nil, err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	if d, derr := os.Open(dir); derr == nil {
		d.Sync() // where directories cannot be synced, that is for the system
		d.Close()
	}
	return info, nil
}

// same reports whether both are the same file in the same state. nil is none.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// lock keeps other processes from changing the file until unlock is called. It
// fails when one of them holds the lock beyond the deadline.
func lock(path string, deadline time.Time) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|nofollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	if err := giveTo(f, filepath.Dir(path)); err != nil {
		f.Close()
		return nil, fmt.Errorf("admission: %w", err)
	}
	for {
		held, err := tryLock(f)
		switch {
		case held:
			return func() { f.Close() }, nil
		case err == nil && time.Now().After(deadline):
			err = errors.New("another process holds it")
			fallthrough
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("admission: lock %s: %w", f.Name(), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
