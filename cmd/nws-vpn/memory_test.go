package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func publicKey(t *testing.T) envelope.PublicKey {
	t.Helper()
	return envelopetest.NewKey(t).Public()
}

func TestPlainMemory(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	one, two, now := publicKey(t), publicKey(t), time.Now()
	m := openPlainMemory(dir, log)
	m.now = func() time.Time { return now }
	m.SetPlain(one, true)
	m.SetPlain(two, true)
	m.SetPlain(two, false)
	if info, err := os.Stat(filepath.Join(dir, plainFile)); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("the file: %v, %v", info, err)
	}
	again := openPlainMemory(dir, log)
	if !again.Plain(one) || again.Plain(two) {
		t.Error("another start remembers something else")
	}
	again.now = func() time.Time { return now.Add(plainFor) }
	if again.Plain(one) {
		t.Error("it is remembered for too long")
	}
	for range 2 * maxPlain {
		m.SetPlain(publicKey(t), true)
	}
	if n := len(openPlainMemory(dir, log).until); n != maxPlain {
		t.Errorf("%d are remembered", n)
	}
	nowhere := openPlainMemory(filepath.Join(dir, "missing"), log)
	if nowhere.SetPlain(one, true); !nowhere.Plain(one) {
		t.Error("nothing is remembered where nothing can be written")
	}
}

func FuzzPlainMemory(f *testing.F) {
	now := time.Unix(1800000000, 0)
	key := "npub18m65m8m74gaxltaw56qtr5z8yjxfxsy8wcp8x9af2ddzq44jaafsg42xxg"
	for _, text := range []string{
		"", "\n\n", key, key + " ", key + " 1800000100\n", key + " 99999999999999\n", key + " -1\nx y z\n",
		fmt.Sprintf("%s %d\r\n", key, now.Unix()+5),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := &plainMemory{now: func() time.Time { return now }, until: make(map[envelope.PublicKey]time.Time)}
		m.read(bytes.NewReader(text))
		for key, until := range m.until {
			if !m.Plain(key) || until.After(now.Add(2*plainFor)) {
				t.Errorf("%v until %v", key, until)
			}
		}
	})
}
