package test

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip19"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// TestLeakPowerCut starts the client from copies of its state directory that were
// made at any moment, as a power cut leaves it.
func TestLeakPowerCut(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	tun.check(27, "a copy of the running state, at any moment, and a start from it", func(t *testing.T, tun *tunnel) {
		up := tun.startUp()
		const moments, apart = 4, 30 // names
		names := namesOf(t, tun.key, (moments+1)*apart)
		var copies []map[string]netip.Addr // what had been told before each
		tun.whileAsking(names, apart, moments, func(told map[string]netip.Addr) {
			at := stateCopy(len(copies))
			copies = append(copies, told)
			must(t, tun.Client.Do(func() error { return copyState(world.StateDir, at) }))
		})
		tun.kill(up)
		tun.nwsEnds(true, "repair")
		for i, told := range copies {
			up := tun.startUpIn(stateCopy(i))
			owner := map[netip.Addr]string{}
			for _, name := range names[:len(told)+20] {
				address := tun.fakeOf(name)
				if was, ok := told[name]; ok && was != address {
					t.Errorf("copy %d: %s was at %s, and is at %s", i, name, was, address)
				}
				if other := owner[address]; other != "" {
					t.Errorf("copy %d: %s and %s are both at %s", i, other, name, address)
				}
				owner[address] = name
			}
			tun.kill(up)
			res, err := tun.Run(tun.ctx, tun.Client, "repair", "--state-dir", stateCopy(i))
			if err != nil || res.Code != 0 {
				t.Errorf("repair ended with code %d, %v: %s", res.Code, err, res.Output)
			}
			tun.restored(before)
		}
	})
}

func stateCopy(i int) string { return fmt.Sprintf("%s-copy-%d", world.StateDir, i) }

// namesOf are names of the exit by its key and different relays.
func namesOf(t *testing.T, npub string, n int) (names []string) {
	t.Helper()
	_, value, err := nip19.Decode(npub)
	must(t, err)
	key, err := hex.DecodeString(value.(string))
	must(t, err)
	b32 := base32.HexEncoding.WithPadding(base32.NoPadding)
	for i := range n {
		names = append(names, strings.ToLower(b32.EncodeToString(fmt.Appendf(nil, "wss://r%d.example", i))+"."+b32.EncodeToString(key)+".nostr"))
	}
	return names
}

// whileAsking asks for the names, one after the other. Whenever there are so many
// more, so many times, it calls f with the answers so far, and goes on asking.
func (tun *tunnel) whileAsking(names []string, more, times int, f func(told map[string]netip.Addr)) {
	moments, ended := make(chan map[string]netip.Addr), make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		answers := map[string]netip.Addr{}
		for _, name := range names {
			answers[name] = tun.fakeOf(name)
			if len(answers)%more != 0 {
				continue
			}
			select {
			case <-ended:
				return
			case moments <- maps.Clone(answers):
			}
		}
	})
	defer asking.Wait()
	defer close(ended)
	for range times {
		f(<-moments)
	}
}

// fakeOf asks the tunnel's name server for the address of a name.
func (tun *tunnel) fakeOf(name string) netip.Addr {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return tun.Client.DialContext(ctx, network, "198.18.0.2:53")
	}}
	found, err := r.LookupNetIP(tun.ctx, "ip4", name+".")
	if err != nil || len(found) != 1 {
		tun.t.Errorf("%s is at %v, %v", name, found, err)
		return netip.Addr{}
	}
	return found[0]
}

// copyState copies the files of a directory, as they are while somebody writes
// them.
func copyState(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue // the socket
		}
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was there for a moment
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
