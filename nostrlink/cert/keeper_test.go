package cert

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func bigOf(bits int) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(bits-1)) }

func TestKeeper(t *testing.T) {
	key := envelopetest.NewKey(t)
	path := filepath.Join(t.TempDir(), "cert.pem")
	long := name.Name{Key: key.Public(), Relays: []string{"wss://a.example", "wss://b.example"}}.Host()
	short := name.Name{Key: key.Public(), Relays: []string{"wss://a.example"}}.Host()
	hosts := []string{strings.ToUpper(long) + ".", short}
	k, err := OpenKeeper(path, key.Public(), hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	c := k.Certificate()
	bare := name.Name{Key: key.Public()}.Host()
	if !slices.Equal(c.DNSNames, []string{bare, "*." + bare, key.Public().NPub() + ".nostr", long}) {
		t.Errorf("names %q", c.DNSNames)
	}
	for _, host := range []string{bare, short, long, key.Public().NPub() + ".nostr"} {
		if err := c.VerifyHostname(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if c.VerifyHostname("bank.example") == nil {
		t.Error("valid for another host")
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}
	again, err := OpenKeeper(path, key.Public(), hosts, now.Add(19*24*time.Hour))
	if err != nil || !again.Certificate().Equal(c) {
		t.Errorf("opened again: %v, another certificate", err)
	}
	if renewed, err := again.Renew(now.Add(19 * 24 * time.Hour)); renewed || err != nil {
		t.Errorf("renewed after 19 days: %v, %v", renewed, err)
	}
	if at := k.RenewAt(); at.Before(now.Add(19*24*time.Hour)) || at.After(now.Add(21*24*time.Hour)) {
		t.Errorf("to be renewed %v", at)
	}
	later := now.Add(21 * 24 * time.Hour)
	if renewed, err := again.Renew(later); !renewed || err != nil {
		t.Errorf("not renewed after 21 days: %v", err)
	}
	fresh, err := OpenKeeper(path, key.Public(), hosts, later)
	if err != nil || !fresh.Certificate().Equal(again.Certificate()) || SPKI(fresh.Certificate()) == SPKI(c) {
		t.Errorf("the renewed one is not in the file, or has the old key: %v", err)
	}
	// Other names want another certificate.
	if k, err := OpenKeeper(path, key.Public(), nil, later); err != nil || k.Certificate().Equal(fresh.Certificate()) {
		t.Errorf("the same certificate for other names: %v", err)
	}
	leftovers, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(leftovers) > 0 {
		t.Errorf("left behind: %q, %v", leftovers, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", k, k, k); strings.Contains(text, "PRIVATE") || strings.Contains(text, "D:") {
		t.Errorf("printed with its key: %s", text)
	}
}

func TestKeeperRefuses(t *testing.T) {
	key := envelopetest.NewKey(t)
	dir := t.TempDir()
	file := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority := filepath.Join(dir, "authority")
	if _, err := OpenAuthority(authority, now); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	half := string(whole[:len(whole)/2])
	cases := map[string]string{
		"no certificate with": file("garbage", "garbage", 0o600),
		"private key":         file("half", half, 0o600),
		"is no file":          dir,
		"no file with a key":  file("long", strings.Repeat("x", maxFile+1), 0o600),
		"an authority":        authority,
		"no such file":        filepath.Join(dir, "none", "cert.pem"),
	}
	if runtime.GOOS != "windows" {
		cases["chmod 600"] = file("open", string(whole), 0o644)
	} else {
		delete(cases, "no such file")
	}
	for what, path := range cases {
		before, _ := os.ReadFile(path)
		_, err := OpenKeeper(path, key.Public(), nil, now)
		if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), half[100:120]) {
			t.Errorf("error %v does not say %q", err, what)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed", what)
		}
	}
	if _, err := OpenKeeper(filepath.Join(dir, "new"), key.Public(), []string{"bank.example"}, now); err == nil {
		t.Error("a certificate for another name")
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

// A file with a certificate that somebody else made is not ours to replace.
func TestForeignCertificateStays(t *testing.T) {
	key := envelopetest.NewKey(t)
	path := filepath.Join(t.TempDir(), "cert.pem")
	pair, err := issue(&x509.Certificate{
		Subject: pkix.Name{Organization: []string{"somebody else"}}, NotBefore: now, NotAfter: now.Add(validity),
		BasicConstraintsValid: true, DNSNames: []string{name.Name{Key: key.Public()}.Host()},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := writePair(path, pair, false); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeeper(path, key.Public(), nil, now); err == nil || !strings.Contains(err.Error(), "has not made") {
		t.Errorf("opened: %v", err)
	}
	wantErr(t, "written over", writePair(path, pair, false), fs.ErrExist)
}

func TestRenewConcurrently(t *testing.T) {
	key := envelopetest.NewKey(t)
	k := newKeeper(t, key, now)
	later := now.Add(25 * 24 * time.Hour)
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := 0
	for range 8 {
		wg.Go(func() {
			renewed, err := k.Renew(later)
			if err != nil {
				t.Error(err)
			}
			if c, err := k.ServerConfig().GetCertificate(nil); err != nil || c.Leaf == nil {
				t.Errorf("no certificate: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if renewed {
				count++
			}
		})
	}
	wg.Wait()
	if count != 1 {
		t.Errorf("renewed %d times", count)
	}
}
