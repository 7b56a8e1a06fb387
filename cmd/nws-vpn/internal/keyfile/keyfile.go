// Package keyfile keeps a secret key in a file that only its owner can read.
//
// The file is text: one line with the key as nsec (NIP-19) or as 64 hexadecimal
// digits, and any number of empty lines and of comments, which begin with #.
// What others could have read is no secret any more, so a file that they can
// read is refused rather than used with a warning. Of systemd's credentials the
// group may have read access: that is how it shows the user's own, and the folder
// keeps all others out. No error repeats what the file holds.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// maxFile bounds how much of a file is read.
const maxFile = 4096

// Read reads the key from the file at path.
func Read(path string) (envelope.SecretKey, error) {
	text, err := ReadPrivate(path, maxFile)
	defer clear(text)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: make one with `nws-vpn keygen %s`", err, path)
		}
		return envelope.SecretKey{}, err
	}
	key, err := parse(text)
	if err != nil {
		return envelope.SecretKey{}, fmt.Errorf("key file: %s: %w", path, err)
	}
	return key, nil
}

// ReadPrivate reads a file that holds a secret, up to one byte more than most. It
// refuses one that others have access to.
func ReadPrivate(path string, most int64) ([]byte, error) {
	// A named pipe without a writer must not hold us up here.
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", Explain(err))
	}
	defer f.Close()
	// Checked on the open file, so that it cannot be exchanged in between.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file: %s is not a regular file", path)
	}
	if err := checkAccess(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return text, nil
}

// Explain adds to the error of opening a file that a service of its own user may
// not read what to do about it. Other errors it returns as they are.
func Explain(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if dir := service.StateDir(os.Getenv); dir != "" {
		return fmt.Errorf("%w: this service has a user of its own, so put the file into its directory %s, with the owner of that, or hand it over with LoadCredential= in the unit", err, dir)
	}
	return fmt.Errorf("%w: this runs as user %d, so give the file to that user with chown", err, os.Geteuid())
}

// isCredential reports whether a path is one of the files that systemd has handed
// to this service alone (LoadCredential=).
func isCredential(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return filepath.IsAbs(dir) && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir)
}

// parse finds the one key in text. Its errors name lines, not their content.
func parse(text []byte) (envelope.SecretKey, error) {
	if len(text) > maxFile {
		return envelope.SecretKey{}, fmt.Errorf("longer than %d bytes: not a key file", maxFile)
	}
	var key envelope.SecretKey
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if !key.IsZero() {
			return envelope.SecretKey{}, fmt.Errorf("line %d: a second key: keep one key in a file", n)
		}
		var err error
		if key, err = envelope.ParseSecretKey(line); err != nil {
			return envelope.SecretKey{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if key.IsZero() {
		return envelope.SecretKey{}, errors.New("no key in it: want a line with nsec1… or 64 hexadecimal digits")
	}
	return key, nil
}

// Create writes key to a new file at path, readable by its owner alone. An
// existing file is never touched: the key in it may be somebody's identity.
func Create(path string, key envelope.SecretKey) error {
	if key.IsZero() {
		return errors.New("key file: no key to write")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("key file: %s exists already and is left as it is: choose another name, or move it away", path)
	}
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	_, err = fmt.Fprintf(f, "# Secret key of %s\n# Whoever has it is that identity: keep it to yourself, and keep a copy.\n%s\n", key.Public().NPub(), key.NSec())
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("key file: write %s: %w", path, err)
	}
	return nil
}
