package platform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	journalName    = "journal"
	journalVersion = 1
	maxJournal     = 1 << 20
)

// journal is what we have changed, or are about to: on disk before the machine
// is touched. What it lists may not be in force (a step that did not come to
// be made, one undone already), so every undo is harmless when there is nothing
// to undo. What is in force, it lists.
type journal struct {
	Version int
	// Boot and Namespace say where the changes are. What the kernel kept is gone
	// with either of them; the resolver's file is not.
	Boot      string
	Namespace namespace
	Changes   changeList
	// Held is the closed state that stays when the process ends (Config.Hold).
	Held *Config `json:",omitempty"`
}

// namespace identifies a network namespace. The cookie is never given twice
// while the machine runs, the inode may be.
type namespace struct {
	Inode  uint64
	Cookie uint64 // 0 on kernels before 5.14
}

func (n namespace) same(o namespace) bool {
	if n.Cookie != 0 && o.Cookie != 0 {
		return n.Cookie == o.Cookie
	}
	return n.Inode == o.Inode
}

// readJournal returns the journal of a state directory, or nil if there is none.
func readJournal(dir string) (*journal, error) {
	path := filepath.Join(dir, journalName)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && st.Size() > maxJournal {
		err = fmt.Errorf("larger than %d bytes", maxJournal)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	var j *journal
	if err == nil {
		j, err = parseJournal(b)
	}
	if err != nil {
		return nil, fmt.Errorf("platform: read the journal %s: %w: look at `ip rule`, `ip -6 rule` and /etc/resolv.conf for what a tunnel has left, put it right, and remove that file", path, err)
	}
	return j, nil
}

func parseJournal(b []byte) (*journal, error) {
	var j journal
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return nil, err
	}
	if j.Version != journalVersion {
		return nil, fmt.Errorf("version %d, but this program writes version %d", j.Version, journalVersion)
	}
	return &j, nil
}

// writeJournal replaces the journal, on disk when it returns. A journal without
// changes is removed.
func writeJournal(dir string, j *journal) error {
	path := filepath.Join(dir, journalName)
	if len(j.Changes) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("platform: remove the journal: %w", err)
		}
		return syncDir(path)
	}
	b, err := json.MarshalIndent(j, "", "\t")
	if err != nil {
		return fmt.Errorf("platform: write the journal: %w", err)
	}
	if err := writeSynced(path, b); err != nil {
		return fmt.Errorf("platform: write the journal: %w: free some space or choose another state directory", err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		os.Remove(next)
		return err
	}
	return syncDir(path)
}

// bootID differs between any two starts of the machine.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("platform: which boot this is: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// threadNamespace is the network namespace of the calling thread.
func threadNamespace() (namespace, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return namespace{}, fmt.Errorf("platform: which network namespace this is: %w", err)
	}
	ns := namespace{Inode: st.Ino}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return namespace{}, fmt.Errorf("platform: which network namespace this is: %w", err)
	}
	defer unix.Close(fd)
	if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
		ns.Cookie = cookie
	}
	return ns, nil
}

// exists reports whether a network namespace of that inode is in use by a
// process or mounted where we can see it.
func (n namespace) exists() bool {
	want := fmt.Sprintf("net:[%d]", n.Inode)
	if b, err := os.ReadFile("/proc/thread-self/mountinfo"); err == nil && strings.Contains(string(b), " "+want+" ") {
		return true
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, l := range links {
		if t, err := os.Readlink(l); err == nil && t == want {
			return true
		}
	}
	return false
}
