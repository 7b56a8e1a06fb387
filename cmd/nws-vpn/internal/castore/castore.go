// Package castore puts an authority into the store of those that this machine's
// programs trust, and takes it out again.
package castore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Store is a system's store of authorities, which a program builds from
// directories of certificates.
type Store struct {
	// Dir is the directory for the machine's own authorities.
	Dir string
	// Update is the command that takes up what was added to Dir, and Refresh
	// the one that also drops what was removed.
	Update, Refresh []string
}

// ErrUnknown means that the store of this system is none that Store can handle.
var ErrUnknown = errors.New("the store of trusted authorities of this system is not known: give the output of `nws-vpn trust show` to the system's own tool")

// System returns the store of this machine: that of Debian and its relatives.
func System() (*Store, error) {
	const dir, program = "/usr/local/share/ca-certificates", "update-ca-certificates"
	if runtime.GOOS != "linux" {
		return nil, ErrUnknown
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, ErrUnknown
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, ErrUnknown
	}
	return &Store{Dir: dir, Update: []string{path}, Refresh: []string{path, "--fresh"}}, nil
}

// Path is where Install writes the certificate.
func (s *Store) Path() string { return filepath.Join(s.Dir, "nws-vpn.crt") }

// Installed reports whether the certificate, in PEM, is in the store.
func (s *Store) Installed(pem []byte) bool {
	text, err := os.ReadFile(s.Path())
	return err == nil && bytes.Equal(text, pem)
}

// Install adds the certificate, in the place of one that it added before. When
// that fails nothing is left of it.
func (s *Store) Install(pem []byte) error {
	if err := s.write(pem); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	if err := run(s.Update); err != nil {
		os.Remove(s.Path())
		return err
	}
	return nil
}

// write makes the file whole or not at all. Others must be able to read it.
func (s *Store) write(pem []byte) error {
	f, err := os.CreateTemp(s.Dir, ".nws-vpn-*") // no .crt yet
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(pem)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.Path())
}

// Remove takes out what Install added, and reports whether there was anything.
func (s *Store) Remove() (removed bool, err error) {
	err = os.Remove(s.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("trust: %w", err)
	}
	return true, run(s.Refresh)
}

// run runs a command. Its error holds the last that the command said.
func run(command []string) error {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("trust: %s: %w: %.200s", filepath.Base(command[0]), err, lines[len(lines)-1])
}
