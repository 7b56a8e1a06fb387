package exit

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// usage is how many bytes clients have used in this day and this month. It has
// no lock of its own.
type usage struct {
	month   string // as 2006-01
	clients map[[32]byte]*used
	changed bool
}

type used struct {
	Day   string `json:"day"` // the last one with bytes, as 2006-01-02
	Bytes int64  `json:"bytes"`
	Month int64  `json:"month"` // bytes
}

// maxUsage bounds the clients whose bytes are kept; what others use counts
// together.
const maxUsage = 100_000

// others is the key of those for whom there is no room.
var others [32]byte

func newUsage() *usage { return &usage{clients: make(map[[32]byte]*used)} }

// turn begins a month anew.
func (u *usage) turn(now time.Time) {
	if m := now.UTC().Format("2006-01"); m != u.month {
		u.month = m
		clear(u.clients)
		u.changed = true
	}
}

// of returns what a client has used today and this month.
func (u *usage) of(key [32]byte, now time.Time) (day, month int64) {
	u.turn(now)
	c := u.clients[key]
	if c == nil && len(u.clients) >= maxUsage {
		c = u.clients[others]
	}
	if c == nil {
		return 0, 0
	}
	if c.Day == now.UTC().Format(time.DateOnly) {
		day = c.Bytes
	}
	return day, c.Month
}

// add enters n bytes.
func (u *usage) add(key [32]byte, n int64, now time.Time) {
	u.enter(key, used{now.UTC().Format(time.DateOnly), n, n}, now)
}

// merge enters what others says. What is of another month is forgotten.
func (u *usage) merge(others *usage, now time.Time) {
	u.turn(now)
	if others.month != u.month {
		return
	}
	for key, c := range others.clients {
		u.enter(key, *c, now)
	}
}

func (u *usage) enter(key [32]byte, more used, now time.Time) {
	u.turn(now)
	c := u.clients[key]
	if c == nil && len(u.clients) >= maxUsage {
		key = others
		c = u.clients[key]
	}
	if c == nil {
		c = new(used)
		u.clients[key] = c
	}
	if c.Day < more.Day {
		c.Day, c.Bytes = more.Day, 0
	}
	if c.Day == more.Day {
		c.Bytes += more.Bytes
	}
	c.Month += more.Month
	u.changed = true
}

// usageFile is how usage is kept across restarts.
type usageFile struct {
	Month   string           `json:"month"`
	Clients map[string]*used `json:"clients"` // by hexadecimal key
}

// MaxUsage bounds what is kept or passed on of the clients' usage, in bytes.
const MaxUsage = 64 << 20

// loadUsage reads what save has written. A file that is not there is empty.
func loadUsage(path string) (*usage, error) {
	u := newUsage()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	var b []byte
	if err == nil && info.Size() > MaxUsage {
		err = fmt.Errorf("larger than %d bytes", MaxUsage)
	}
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err == nil {
		u, err = parseUsage(b)
	}
	if err != nil {
		return nil, fmt.Errorf("exit: read the clients' quotas: %w: mend or remove %s", err, path)
	}
	return u, nil
}

// parseUsage reads what encode has written.
func parseUsage(b []byte) (*usage, error) {
	var f usageFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	u := newUsage()
	u.month = f.Month
	for text, c := range f.Clients {
		var key [32]byte
		if n, err := hex.Decode(key[:], []byte(text)); err != nil || n != len(key) || len(text) != 2*len(key) || c == nil || c.Bytes < 0 || c.Month < 0 {
			return nil, fmt.Errorf("entry %q makes no sense", text)
		}
		if len(u.clients) < maxUsage {
			u.clients[key] = c
		}
	}
	return u, nil
}

// encode returns the file's content and takes it for saved.
func (u *usage) encode() ([]byte, error) {
	f := usageFile{u.month, make(map[string]*used, len(u.clients))}
	for key, c := range u.clients {
		f.Clients[hex.EncodeToString(key[:])] = c
	}
	u.changed = false
	return json.Marshal(f)
}

// writeUsage replaces the file, on disk when it returns.
func writeUsage(path string, b []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("exit: save the clients' quotas: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	d.Sync() // not every system can; the file is whole in any case
	return nil
}

// SaveUsage writes Config.UsageFile, if there is something new for it. Call it
// now and then: what is not saved is forgiven when the process is killed.
func (s *Server) SaveUsage() error {
	s.usage.Lock()
	defer s.usage.Unlock()
	return s.saveUsage()
}

func (s *Server) saveUsage() error {
	if s.usage.file == "" {
		return nil
	}
	b, err := s.accounts.saveUsage()
	if b == nil || err != nil {
		return err
	}
	return writeUsage(s.usage.file, b)
}

// PrepareHandOver saves usage for another Server, which reads it next. What the
// clients use from then on is for PassOnUsage too.
func (s *Server) PrepareHandOver() error {
	s.usage.Lock()
	defer s.usage.Unlock()
	s.accounts.countLate()
	return s.saveUsage()
}

// HandOverUsage leaves Config.UsageFile to the other Server.
func (s *Server) HandOverUsage() {
	s.usage.Lock()
	defer s.usage.Unlock()
	s.usage.file = ""
}

// PassOnUsage calls pass, if the clients have used anything since PrepareHandOver
// or the last call, with what that is, for the other Server's AddUsage. If pass
// fails, the next call has it too.
func (s *Server) PassOnUsage(pass func(usage []byte) error) error {
	s.usage.Lock()
	defer s.usage.Unlock()
	late := s.accounts.takeLate()
	if late == nil {
		return nil
	}
	b, err := late.encode()
	if err == nil {
		err = pass(b)
	}
	if err != nil {
		s.accounts.giveBackLate(late)
		return fmt.Errorf("exit: pass on what the clients have used: %w", err)
	}
	return nil
}

// AddUsage enters what another Server has passed on.
func (s *Server) AddUsage(b []byte) error {
	u, err := parseUsage(b)
	if err != nil {
		return fmt.Errorf("exit: usage of another process: %w", err)
	}
	s.accounts.addUsage(u)
	return nil
}
