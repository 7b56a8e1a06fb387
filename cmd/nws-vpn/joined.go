package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/invite"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// credentialsFunc is what nostrlink.LinkOptions.Credentials is.
type credentialsFunc = func(exit envelope.PublicKey) nostrlink.Credentials

// joinedExit is an exit that the user was invited to, as it is in a file that only
// he can read: NAME.json in the directory of them.
type joinedExit struct {
	Version      int      `json:"version"`
	Exit         string   `json:"exit"` // npub
	Relays       []string `json:"relays"`
	Token        string   `json:"token"`
	IdentityFile string   `json:"identity_file"` // key file, by default beside this one

	key envelope.PublicKey
}

const (
	joinedVersion = 1
	joinedSuffix  = ".json"
	maxJoined     = 256
	maxJoinedFile = 16 << 10
)

// joinedDir is where joined exits are: beside the configuration file.
func (f *configFlags) joinedDir() string {
	const base = "exits"
	switch {
	case f.file != "":
		return filepath.Join(filepath.Dir(f.file), base)
	case os.Geteuid() == 0:
		return filepath.Join(filepath.Dir(config.DefaultPath), base)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "" // no home, and so nothing in it
	}
	return filepath.Join(dir, "nws-vpn", base)
}

func parseJoined(text []byte) (*joinedExit, error) {
	if len(text) > maxJoinedFile {
		return nil, fmt.Errorf("longer than %d bytes", maxJoinedFile)
	}
	x := new(joinedExit)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return nil, err
	}
	if x.Version != joinedVersion {
		return nil, fmt.Errorf("of version %d, which this program does not know", x.Version)
	}
	var err error
	if x.key, err = envelope.ParsePublicKey(x.Exit); err != nil {
		return nil, fmt.Errorf("exit: %w", err)
	}
	if len(x.Relays) == 0 {
		return nil, errors.New("no relay")
	}
	for _, relay := range x.Relays {
		if canonical, err := name.Relay(relay); err != nil || canonical != relay {
			return nil, errors.New("a relay's address is none")
		}
	}
	if _, err := invite.ParseToken(x.Token); err != nil {
		return nil, err
	}
	return x, nil
}

// joinedExits are all of them by name. A file that is wrong is in bad: it matters
// only to those who want that exit.
type joinedExits struct {
	dir    string
	byName map[string]*joinedExit
	bad    map[string]error
}

func readJoined(dir string) (*joinedExits, error) {
	j := &joinedExits{dir: dir, byName: make(map[string]*joinedExit), bad: make(map[string]error)}
	if dir == "" {
		return j, nil
	}
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("joined exits: %w", err)
	}
	for _, f := range files {
		label, ok := strings.CutSuffix(f.Name(), joinedSuffix)
		if !ok || name.CheckPetname(label) != nil {
			continue
		}
		if len(j.byName)+len(j.bad) == maxJoined {
			return nil, fmt.Errorf("joined exits: more than %d are in %s: delete some", maxJoined, dir)
		}
		path := filepath.Join(dir, f.Name())
		text, err := keyfile.ReadPrivate(path, maxJoinedFile)
		if err == nil {
			j.byName[label], err = parseJoined(text)
		}
		if err != nil {
			delete(j.byName, label)
			j.bad[label] = fmt.Errorf("joined exit %s: %s: %w", label, path, err)
		}
	}
	return j, nil
}

// credentials are what a joined exit is shown.
func (j *joinedExits) credentials(x *joinedExit) (c nostrlink.Credentials, err error) {
	path := x.IdentityFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(j.dir, path)
	}
	key, err := keyfile.Read(path)
	return nostrlink.Credentials{Identity: &key, Token: x.Token}, err
}

// of returns the name of the joined exit with a key.
func (j *joinedExits) of(key envelope.PublicKey) (label string, x *joinedExit) {
	for _, label := range slices.Sorted(maps.Keys(j.byName)) {
		if j.byName[label].key == key {
			return label, j.byName[label]
		}
	}
	return "", nil
}

// overrideRelays puts the command line's relays, if any, over the configuration's.
func overrideRelays(up *config.Up, relays []string) error {
	if err := config.CheckRelays(relays); err != nil {
		return fmt.Errorf("--relay: %w", err)
	}
	if len(relays) > 0 {
		up.Relays = relays
	}
	return nil
}

// overrideExit puts what the command line says of the exit over the configuration.
// The configuration's identity is for the configuration's exit alone.
func overrideExit(up *config.Up, exit string, relays []string, identity string) error {
	if exit != "" && exit != up.Exit {
		up.Exit, up.IdentityFile = exit, ""
	}
	if err := overrideRelays(up, relays); err != nil {
		return err
	}
	if err := config.CheckKeyFile(identity); err != nil {
		return fmt.Errorf("--identity: %w", err)
	}
	if identity != "" {
		if up.Exit == "" || up.Exit == config.AutoExit {
			return errors.New("--identity: name the exit that it is for with --exit: it is shown to no other")
		}
		up.IdentityFile = identity
	}
	return nil
}

// dialAs completes the configuration with the exits that the user has joined, in
// dir: their names, and the relays of the one that is chosen unless some are given.
// It returns what exits are to be shown.
func dialAs(cfg *config.Config, dir string, relaysGiven bool) (credentialsFunc, error) {
	joined, err := readJoined(dir)
	if err != nil {
		return nil, err
	}
	if err := joined.choose(cfg, relaysGiven); err != nil {
		return nil, err
	}
	shown := make(map[envelope.PublicKey]nostrlink.Credentials)
	chosen, chosenErr := chosenKey(cfg)
	for _, x := range joined.byName {
		c, err := joined.credentials(x)
		switch {
		case err == nil:
			shown[x.key] = c
		case chosenErr == nil && x.key == chosen && cfg.Up.IdentityFile == "":
			return nil, err
		}
	}
	if cfg.Up.IdentityFile != "" {
		if chosenErr != nil {
			return nil, chosenErr
		}
		key, err := keyfile.Read(cfg.Up.IdentityFile)
		if err != nil {
			return nil, fmt.Errorf("identity_file: %w", err)
		}
		c := shown[chosen]
		c.Identity = &key
		shown[chosen] = c
	}
	return func(exit envelope.PublicKey) nostrlink.Credentials { return shown[exit] }, nil
}

// choose finds the exit that the user has chosen among the joined ones, and gives
// all of them their names.
func (j *joinedExits) choose(cfg *config.Config, relaysGiven bool) error {
	up := &cfg.Up
	label := strings.TrimSuffix(strings.ToLower(up.Exit), ".nostr")
	if _, own := cfg.Names[label]; !own {
		if err := j.bad[label]; err != nil {
			return err
		}
		if x := j.byName[label]; x != nil {
			up.Exit = x.Exit
			if !relaysGiven {
				up.Relays = x.Relays
			}
		}
	}
	if key, err := chosenKey(cfg); err == nil && len(up.Relays) == 0 {
		if _, x := j.of(key); x != nil {
			up.Relays = x.Relays
		}
	}
	for label, x := range j.byName {
		if _, own := cfg.Names[label]; own {
			continue
		}
		s, err := name.Name{Key: x.key, Relays: x.Relays}.Spellings()
		if err != nil {
			return fmt.Errorf("joined exit %s: %w", label, err)
		}
		if cfg.Names == nil {
			cfg.Names = make(map[string]string)
		}
		cfg.Names[label] = s.NProfile
	}
	return nil
}

// chosenKey is the key of the exit that the configuration names.
func chosenKey(cfg *config.Config) (envelope.PublicKey, error) {
	book, err := name.NewBook(cfg.Names)
	if err != nil {
		return envelope.PublicKey{}, err
	}
	n, err := findName(cfg.Up.Exit, book)
	return n.Key, err
}
