package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

const (
	// plainFile is in the state directory: a line for each exit, with its npub
	// and until when it is remembered, in seconds since 1970.
	plainFile = "exits-without-session"
	// plainFor is how long an exit is remembered. It is not for good, although
	// one that has been updated is noticed in any case: a relay that keeps its
	// answer back once is not to gain more than that.
	plainFor = 24 * time.Hour
	maxPlain = 256
	// maxPlainFile is more than so many lines take.
	maxPlainFile = 64 << 10
)

// plainMemory remembers across starts which exits know no session. It is a
// nostrlink.Memory.
type plainMemory struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu    sync.Mutex
	until map[envelope.PublicKey]time.Time
}

// openPlainMemory reads what is remembered in a state directory. What cannot be
// read is forgotten.
func openPlainMemory(dir string, log *slog.Logger) *plainMemory {
	m := &plainMemory{path: filepath.Join(dir, plainFile), log: log, now: time.Now, until: make(map[envelope.PublicKey]time.Time)}
	f, err := os.Open(m.path)
	if err != nil {
		return m
	}
	defer f.Close()
	m.read(io.LimitReader(f, maxPlainFile))
	return m
}

func (m *plainMemory) read(r io.Reader) {
	now := m.now()
	for lines := bufio.NewScanner(r); lines.Scan() && len(m.until) < maxPlain; {
		npub, seconds, _ := strings.Cut(lines.Text(), " ")
		key, err := envelope.ParsePublicKey(npub)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(seconds, 10, 64)
		// A clock that was wrong must not make it last.
		if until := time.Unix(n, 0); err == nil && until.After(now) && until.Before(now.Add(2*plainFor)) {
			m.until[key] = until
		}
	}
}

// Plain implements nostrlink.Memory.
func (m *plainMemory) Plain(exit envelope.PublicKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.until[exit].After(m.now())
}

// SetPlain implements nostrlink.Memory.
func (m *plainMemory) SetPlain(exit envelope.PublicKey, plain bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	delete(m.until, exit)
	for key, until := range m.until {
		if !until.After(now) || len(m.until) >= maxPlain {
			delete(m.until, key)
		}
	}
	if plain {
		m.until[exit] = now.Add(plainFor)
	}
	if err := m.write(); err != nil {
		m.log.Debug("which exits know no session is not remembered", "err", err)
	}
}

// write replaces the file.
func (m *plainMemory) write() error {
	var text bytes.Buffer
	for key, until := range m.until {
		fmt.Fprintf(&text, "%s %d\n", key.NPub(), until.Unix())
	}
	temp := m.path + ".new"
	if err := os.WriteFile(temp, text.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, m.path)
}
