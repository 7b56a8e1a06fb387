package dnsintercept

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func openStore(t *testing.T, path string) *FileStore {
	t.Helper()
	s, err := OpenFileStore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFileStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addresses")
	s := openStore(t, path)
	p, err := NewPool(s.Key(), PoolOptions{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	before := give(t, p, 20)
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// No Close: a process that is killed does not call it either.
	again := openStore(t, path)
	if again.Key() != s.Key() || again.Key() == [32]byte{} {
		t.Errorf("keys %x and %x", s.Key(), again.Key())
	}
	p, err = NewPool(again.Key(), PoolOptions{Store: again})
	if err != nil {
		t.Fatal(err)
	}
	if p.Len() != len(before) {
		t.Errorf("%d names after the restart", p.Len())
	}
	for i, addr := range give(t, p, 20) {
		if addr != before[i] {
			t.Errorf("%s: %s, before the restart %s", host(i), addr, before[i])
		}
	}
	if other := openStore(t, path+"2"); other.Key() == s.Key() {
		t.Error("two journals have one key")
	}
}

// leak check 27: no address for two names, wherever the file was cut
func TestFileStoreAfterPowerCuts(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "addresses")
	s := openStore(t, path)
	for i := range 5 {
		if err := s.Save(Entry{host(i), uint32(300 + i), time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := bytes.IndexByte(whole, '\n') + 1
	for n := head; n <= len(whole); n++ {
		cut := filepath.Join(dir, "cut")
		if err := os.WriteFile(cut, append(bytes.Clone(whole[:n]), "\x00\x00"[:n%3%2]...), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, cut)
		entries, err := s.Load()
		if want := bytes.Count(whole[head:n], []byte("\n")); err != nil || len(entries) != want {
			t.Fatalf("cut after %d bytes: %d entries, %v, want %d", n, len(entries), err, want)
		}
		// What is added now is not lost behind the damage.
		if err := s.Save(Entry{"new.nostr", 999, time.Unix(9, 0)}); err != nil {
			t.Fatal(err)
		}
		if after, err := s.Load(); err != nil || len(after) != len(entries)+1 {
			t.Fatalf("cut after %d bytes: %d entries after a new one, %v", n, len(after), err)
		}
		s.Close()
	}
}

func TestFileStoreDropsWhatWasReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addresses")
	s := openStore(t, path)
	for i := range 1500 {
		if err := s.Save(Entry{host(i % 2), uint32(300 + i%3), time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := s.Load()
	if err != nil || len(entries) > 600 {
		t.Errorf("%d lines for two names, %v", len(entries), err)
	}
	last := entries[len(entries)-1]
	if last.Host != host(1) || last.Slot != 302 || last.Used.Unix() != 1499 {
		t.Errorf("last entry %v", last)
	}
	s = openStore(t, path)
	if entries, err = s.Load(); err != nil || len(entries) != 2 {
		t.Errorf("%d lines after opening, %v", len(entries), err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFileStoreGoesOnWithoutRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, filepath.Join(dir, "addresses"))
	if err := os.RemoveAll(dir); err != nil {
		t.Skip("needs a system that can remove an open file:", err)
	}
	s.lines = 2000 // time to shrink, for which there is no directory
	for i := range 3 {
		if err := s.Save(Entry{host(i), uint32(300 + i), time.Now()}); err != nil {
			t.Error(err)
		}
	}
}

func TestFileStoreRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{
		"", "\n", "hello\n", journalHead + "\n", journalHead + strings.Repeat("z", 64) + "\n",
		journalHead + strings.Repeat("00", 31) + "\n", strings.Replace(journalHead, "1", "2", 1) + strings.Repeat("00", 32) + "\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFileStore(path); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%q: %v", content, err)
		}
		if after, _ := os.ReadFile(path); string(after) != content {
			t.Errorf("%q was changed to %q", content, after)
		}
	}
	if _, err := OpenFileStore(dir); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := OpenFileStore(filepath.Join(dir, "none", "file")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	s := openStore(t, filepath.Join(dir, "closed"))
	s.Close()
	if err := s.Save(Entry{host(1), 300, time.Now()}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func FuzzJournal(f *testing.F) {
	head := journalHead + strings.Repeat("ab", 32) + "\n"
	f.Add([]byte(head + "300 1795227603 blog.nostr\n301 1795227604 other.nostr\n301 17952"))
	f.Add([]byte(head + "300 -1 blog.nostr\n 1 1 a\n99999999999 1 b.nostr\n1 1 \n"))
	f.Add([]byte("something else"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, entries, err := parseJournal(data)
		if err != nil {
			return
		}
		out := journalHead
		for _, b := range key {
			out += string("0123456789abcdef"[b>>4]) + string("0123456789abcdef"[b&15])
		}
		text := []byte(out + "\n")
		for _, e := range entries {
			text = appendEntry(text, e)
		}
		key2, again, err := parseJournal(text)
		if err != nil || key2 != key || len(again) != len(entries) {
			t.Fatalf("%q reads as %v, %v", text, again, err)
		}
		for i, e := range entries {
			if again[i] != e {
				t.Fatalf("entry %v became %v", e, again[i])
			}
		}
		newPool(t, PoolOptions{Store: &memStore{entries: entries}})
	})
}
