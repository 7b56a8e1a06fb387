package dnsintercept

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// journalHead begins a journal; the pool's key follows it.
	journalHead = "nws-vpn fake addresses 1 "
	// maxJournal bounds what is read of a file that may be anything. It is
	// twice what a full journal of the largest range can hold.
	maxJournal = 128 << 20
)

// FileStore is a Store in one text file, readable by its owner only: it tells
// which names were visited. A line is "slot unix-seconds host"; the first line
// holds the pool's key. Every line is on the disk before Save returns. Lines
// that later ones replaced are dropped when the file is opened and whenever
// they are in the majority.
type FileStore struct {
	path string
	key  [32]byte

	mu    sync.Mutex
	file  *os.File
	size  int64 // of the whole lines in file
	lines int   // added since the file was compacted
	live  int   // lines left when it was
}

// OpenFileStore opens the journal at path, or begins one there with a new
// random key. The directory must exist. A last line that a crash cut short is
// dropped; a file that is no journal is an error.
func OpenFileStore(path string) (*FileStore, error) {
	s := &FileStore{path: path}
	entries, err := s.read()
	if errors.Is(err, fs.ErrNotExist) {
		rand.Read(s.key[:])
	} else if err != nil {
		return nil, err
	}
	if err := s.compact(entries); err != nil {
		return nil, err
	}
	return s, nil
}

// Key is the key for NewPool that belongs to the journal.
func (s *FileStore) Key() [32]byte { return s.key }

// Load returns the journal's entries.
func (s *FileStore) Load() ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read()
}

// Save writes e and waits for the disk.
func (s *FileStore) Save(e Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return fmt.Errorf("dnsintercept: journal %s: %w", s.path, fs.ErrClosed)
	}
	if s.lines > 2*s.live+1024 && s.shrink() != nil {
		s.live = s.lines // it goes on growing, and is tried again much later
	}
	line := appendEntry(nil, e)
	_, err := s.file.WriteAt(line, s.size)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		// Half a line is overwritten by the next Save, or dropped as the
		// file's last by the next start.
		return fmt.Errorf("dnsintercept: journal: %w", err)
	}
	s.size += int64(len(line))
	s.lines++
	return nil
}

// shrink drops the lines that others replaced.
func (s *FileStore) shrink() error {
	entries, err := s.read()
	if err != nil {
		return err
	}
	return s.compact(entries)
}

// Close closes the file. Later calls of Save fail.
func (s *FileStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// read reads the whole file, and the key.
func (s *FileStore) read() ([]Entry, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxJournal {
		return nil, fmt.Errorf("dnsintercept: %s is no journal of fake addresses: remove it, or use another state directory", s.path)
	}
	data, err := os.ReadFile(s.path)
	if err != nil {
		return nil, err
	}
	key, entries, err := parseJournal(data)
	if err != nil {
		return nil, fmt.Errorf("dnsintercept: %s: %w: remove it, or use another state directory", s.path, err)
	}
	s.key = key
	return entries, nil
}

// compact replaces the file by one with only what counts of entries, in one
// step, and keeps it open.
func (s *FileStore) compact(entries []Entry) error {
	known := newLedger()
	for _, e := range entries {
		known.add(e)
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*")
	if err != nil {
		return fmt.Errorf("dnsintercept: journal: %w", err)
	}
	size, err := writeJournal(f, s.key, known)
	if err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return fmt.Errorf("dnsintercept: journal: %w", err)
	}
	syncDir(filepath.Dir(s.path))
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.size, s.lines, s.live = f, size, 0, len(known.bySlot)
	return nil
}

func writeJournal(f *os.File, key [32]byte, known *ledger) (size int64, err error) {
	w := bufio.NewWriter(f)
	n, _ := fmt.Fprintf(w, "%s%x\n", journalHead, key)
	size = int64(n)
	for _, e := range known.bySlot {
		n, _ := w.Write(appendEntry(nil, e))
		size += int64(n)
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return size, f.Sync()
}

// syncDir makes a rename durable where the system can do that for directories.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}

func parseJournal(data []byte) (key [32]byte, entries []Entry, err error) {
	head, rest, _ := bytes.Cut(data, []byte("\n"))
	digits, ok := strings.CutPrefix(string(head), journalHead)
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != len(key) {
		return key, nil, errors.New("no journal of fake addresses")
	}
	for {
		line, more, whole := bytes.Cut(rest, []byte("\n"))
		if !whole {
			return [32]byte(raw), entries, nil
		}
		if e, ok := parseEntry(string(line)); ok {
			entries = append(entries, e)
		}
		rest = more
	}
}

func appendEntry(b []byte, e Entry) []byte {
	return fmt.Appendf(b, "%d %d %s\n", e.Slot, e.Used.Unix(), e.Host)
}

// parseEntry is the inverse of appendEntry, but for the line's end.
func parseEntry(line string) (Entry, bool) {
	f := strings.Split(line, " ")
	if len(f) != 3 || !fit(f[2]) {
		return Entry{}, false
	}
	slot, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil {
		return Entry{}, false
	}
	used, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || used < 0 || used > 1<<40 {
		return Entry{}, false
	}
	return Entry{Host: f[2], Slot: uint32(slot), Used: time.Unix(used, 0)}, true
}

// fit reports whether host can be a name that was given an address: in the form
// that a Pool is asked for, and of letters that hosts have in the DNS.
func fit(host string) bool {
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// ledger keeps entries apart: one for each host and one for each slot, and a
// later one replaces what it contradicts.
type ledger struct {
	bySlot map[uint32]Entry
	byHost map[string]uint32
}

func newLedger() *ledger {
	return &ledger{bySlot: make(map[uint32]Entry), byHost: make(map[string]uint32)}
}

func (l *ledger) add(e Entry) {
	if slot, ok := l.byHost[e.Host]; ok {
		delete(l.bySlot, slot)
	}
	if old, ok := l.bySlot[e.Slot]; ok {
		delete(l.byHost, old.Host)
	}
	l.bySlot[e.Slot] = e
	l.byHost[e.Host] = e.Slot
}
