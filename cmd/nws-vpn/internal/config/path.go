package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Path is the file that counts for this user when none is named, or would if it
// were there: the machine's, DefaultPath, or for others than root their own,
// nws-vpn/nws.toml in $XDG_CONFIG_HOME or ~/.config, if that exists or they may not
// read the machine's. Root never reads what is in a home directory.
func Path() string {
	path, _ := find()
	return path
}

// find is Path, and whether the file is there to be read.
func find() (path string, there bool) {
	dir, err := os.UserConfigDir()
	if os.Geteuid() == 0 || err != nil {
		_, err := os.Stat(DefaultPath)
		return DefaultPath, !errors.Is(err, fs.ErrNotExist)
	}
	return findAs(filepath.Join(dir, "nws-vpn", filepath.Base(DefaultPath)), DefaultPath, func(path string) error {
		_, err := os.Stat(path)
		return err
	}, func(path string) error {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		return err
	})
}

// findAs is find for somebody who is not root. An own file that is there counts,
// if only for an error.
func findAs(own, machine string, stat, open func(path string) error) (path string, there bool) {
	if stat(own) == nil {
		return own, true
	}
	switch err := open(machine); {
	case errors.Is(err, fs.ErrNotExist):
		return machine, false
	case errors.Is(err, fs.ErrPermission):
		return own, false
	}
	return machine, true
}
