package exit

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

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
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+usageTemp+"*") // with mode 0600
	if err != nil {
		return fmt.Errorf("exit: save the clients' quotas: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("exit: save the clients' quotas: %w", err)
	}
	return nil
}

// usageTemp is how the name of a file that is being written goes on.
const usageTemp = ".new-"

// removeUsageTemps removes what processes that were killed have left of the file.
// Who calls it has the file for itself.
func removeUsageTemps(path string) {
	dir := filepath.Dir(path)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+usageTemp) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
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

// SaveUsage writes Config.UsageFile, if it is the Server's and there is something
// new for it. Call it now and then: what is not saved is forgiven when the process
// is killed.
func (s *Server) SaveUsage() error {
	s.usage.Lock()
	defer s.usage.Unlock()
	if !s.usage.own {
		return nil
	}
	return s.writeUsage(s.accounts.saveUsage())
}

// writeUsage writes what the accounts have given for the file; usage is locked.
func (s *Server) writeUsage(b []byte, err error) error {
	if b == nil || err != nil {
		return err
	}
	if err = writeUsage(s.usage.file, b); err != nil {
		s.accounts.usageNotSaved()
	}
	return err
}

// HandOverUsage saves usage a last time, for the other Server's TakeOverUsage, and
// leaves Config.UsageFile to that one. What the clients use from then on is for
// PassOnUsage.
func (s *Server) HandOverUsage() error {
	s.usage.Lock()
	defer s.usage.Unlock()
	b, err := s.accounts.handOver()
	if !s.usage.own {
		return nil
	}
	s.usage.own = false
	return s.writeUsage(b, err)
}

// TakeOverUsage is called once another Server's HandOverUsage has returned, or its
// process has ended: Config.UsageFile is this one's from now on, and what it says is
// added to what the clients have used here. When it cannot be read, what New read of
// it counts.
func (s *Server) TakeOverUsage() error {
	s.usage.Lock()
	defer s.usage.Unlock()
	if s.usage.file == "" || s.usage.own {
		return nil
	}
	s.usage.own = true
	removeUsageTemps(s.usage.file)
	saved, err := loadUsage(s.usage.file) // nil with an error
	s.accounts.takeOver(saved)
	return err
}

// PassOnUsage calls pass, if the clients have used anything that the owner of
// Config.UsageFile does not know of, with what that is, for that Server's AddUsage:
// since HandOverUsage, or since New with Config.Successor, or since the last call.
// If pass fails, the next call has it too.
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
