package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
)

// exitFinder finds the state directory of the exit that an operator means.
type exitFinder struct {
	getenv  func(string) string
	service string // the state directory of the unit
	// key and file say that the key, or the configuration, was named: then no
	// other exit is meant, least of all the unit's.
	key, file bool
}

// find is the directory that an exit with that configuration would use, or that of
// the unit when nothing is named.
func (f *exitFinder) find(e *config.Exit) (string, error) {
	if f.key {
		if err := checkKeyIsThere(e.KeyFile); err != nil {
			return "", err
		}
	}
	switch {
	case setStateDir(e, f.getenv) != "":
		return setStateDir(e, f.getenv), nil
	case e.KeyFile == "" && f.file:
		return "", errors.New("the configuration does not say which exit is meant, by key_file or state_dir: name its state directory with --state-dir, or its key file with --key")
	case e.KeyFile == "":
		return f.service, nil
	}
	dir := exitStateDir(e, f.getenv)
	_, err := os.Stat(dir)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return dir, nil
	case !f.key && !f.file, sameFile(filepath.Dir(e.KeyFile), f.service):
		return f.service, nil
	}
	if err := checkKeyIsThere(e.KeyFile); err != nil {
		return "", err
	}
	return "", fmt.Errorf("no exit has run with the key %s, for there is no %s: name the exit's state directory with --state-dir, or another key file with --key", e.KeyFile, dir)
}

func checkKeyIsThere(path string) error {
	_, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no key file %s: name the exit's with --key, or its state directory with --state-dir", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("key file: %w: run this as the exit's user, or as root", err)
	case err != nil:
		return fmt.Errorf("key file: %w: name the exit's with --key, or its state directory with --state-dir", err)
	}
	return nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// dir is the state directory of the exit that is meant. It does without a
// configuration that cannot be read, as long as there is something to find the
// exit by: a running one can be asked whatever has become of its file.
func (s *exitSocket) dir() (string, error) {
	if s.stateDir != "" {
		return s.stateDir, nil
	}
	find := exitFinder{getenv: os.Getenv, service: exitServiceDir, key: s.keyPath != ""}
	find.file = s.config.file != "" && !sameFile(s.config.file, config.DefaultPath) // which is the unit's
	var e *config.Exit
	if cfg, err := s.config.load(); err == nil {
		e = &cfg.Exit
	} else {
		e = config.GlimpseExit(s.config.file)
		isFound := s.keyPath != "" || e.KeyFile != "" || setStateDir(e, os.Getenv) != ""
		if s.config.file != "" && !isFound {
			return "", fmt.Errorf("%w: mend that, or name the exit's state directory with --state-dir", err)
		}
		s.note(err)
	}
	if s.keyPath != "" {
		e.KeyFile = s.keyPath
	}
	return find.find(e)
}

// note says, once, that the configuration cannot be read.
func (s *exitSocket) note(err error) {
	if !s.told && !s.quiet {
		fmt.Fprintf(s.notes(), "nws-vpn: %v\nnws-vpn: going on without the configuration\n", err)
	}
	s.told = true
}

// isMeant makes sure that the exit which has the state directory has the key that
// was named: a configuration can lead to the directory of another one. What cannot
// be found out is no error.
func (s *exitSocket) isMeant(ctx context.Context, dir string) error {
	if s.keyPath == "" || s.stateDir != "" || dir == s.keyPath+".state" {
		return nil
	}
	key, err := keyfile.Read(s.keyPath)
	if err != nil {
		return nil
	}
	path := "/alive?" + url.Values{"npub": {key.Public().NPub()}}.Encode()
	if _, err := control.Do(ctx, dir, http.MethodGet, path); errors.Is(err, control.ErrRefused) {
		return fmt.Errorf("%w: name the state directory of the one you mean with --state-dir", err)
	}
	return nil
}
