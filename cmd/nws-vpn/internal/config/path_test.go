package config

import (
	"errors"
	"io/fs"
	"testing"
)

func TestPathOfUsers(t *testing.T) {
	for _, test := range []struct {
		own, machine error // what looking at them says
		want         string
		there        bool
	}{
		{nil, nil, "own", true},
		{nil, fs.ErrPermission, "own", true},
		{fs.ErrNotExist, nil, "machine", true},
		{fs.ErrNotExist, errors.New("a broken disk"), "machine", true},
		{fs.ErrNotExist, fs.ErrNotExist, "machine", false},
		{fs.ErrNotExist, fs.ErrPermission, "own", false},
		{fs.ErrPermission, nil, "machine", true}, // a home that is not his
		{fs.ErrPermission, fs.ErrPermission, "own", false},
	} {
		got, there := findAs("own", "machine", func(string) error { return test.own }, func(string) error { return test.machine })
		if got != test.want || there != test.there {
			t.Errorf("own %v, machine's %v: got %s, %v", test.own, test.machine, got, there)
		}
	}
}
