package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

// record says, from the moment when the machine is first changed until it is as
// it was, how it is closed: for those who find it so after a process was killed.
// It goes with a restart of the machine, as does what it is about.
type record struct {
	KillSwitch lifecycle.KillSwitch `json:"kill_switch"`
	Boot       string               `json:"boot"`
}

const recordName = "closed.json"

// remember writes the record, before the machine is changed.
func (d *stateDirs) remember(r record) error {
	r.Boot = bootID()
	b, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(d.run(), 0o700)
	}
	path := filepath.Join(d.run(), recordName)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("note that the machine is closed: %w", err)
	}
	return nil
}

// recall reads the record; found is whether the machine was left closed. One
// that cannot be read says the safe thing.
func (d *stateDirs) recall() (r record, found bool) {
	b, err := os.ReadFile(filepath.Join(d.run(), recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return record{KillSwitch: lifecycle.On}, true
	}
	return r, r.Boot == bootID()
}

// forget removes the record: the machine is as it was.
func (d *stateDirs) forget() error {
	err := os.Remove(filepath.Join(d.run(), recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// bootID differs between any two starts of the machine, where that is known.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(b)
}
