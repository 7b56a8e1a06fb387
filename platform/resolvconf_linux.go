package platform

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// resolvChange puts a file of ours in the place of the resolver's, whatever was
// there: a file, a link, or nothing.
type resolvChange struct {
	Content []byte
	Saved   savedFile
}

func (r *resolvChange) String() string { return "replace the resolver's file" }

func (r *resolvChange) script() []string {
	var lines []string
	for line := range strings.Lines(string(r.Content)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return []string{"replace /etc/resolv.conf by a file that says: " + strings.Join(lines, "; ")}
}

func (r *resolvChange) inForce(e *env) (bool, error) {
	now, err := readFile(e.resolvConf)
	return err == nil && now.Kind == kindFile && bytes.Equal(now.Content, r.Content), err
}

// errWritten says that another program was faster: its file is not saved, and
// must not be lost.
var errWritten = errors.New("another program has just written it")

func (r *resolvChange) apply(e *env) error {
	now, err := readFile(e.resolvConf)
	if err != nil {
		return err
	}
	if !now.equal(r.Saved) && !r.isOurs(now) {
		return errWritten
	}
	return putFile(e, e.resolvConf, savedFile{Kind: kindFile, Content: r.Content, Mode: 0o644})
}

// undo puts the saved file back, unless another program has put its own there
// since: then that is the one for the network the machine is on now.
func (r *resolvChange) undo(e *env) error {
	if err := os.Remove(newName(e.resolvConf)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return err
	}
	now, err := readFile(e.resolvConf)
	if err != nil {
		return err
	}
	if now.equal(r.Saved) || !r.isOurs(now) {
		return nil
	}
	return putFile(e, e.resolvConf, r.Saved)
}

// isOurs reports whether the file is one we left there: ours, also edited, or
// one that was being written in place, either way, when the process died. A
// file that is missing is nobody's; it is put back.
func (r *resolvChange) isOurs(now savedFile) bool {
	switch now.Kind {
	case kindMissing:
		return true
	case kindFile:
		torn := r.Saved.Kind == kindFile &&
			(bytes.HasPrefix(r.Content, now.Content) || bytes.HasPrefix(r.Saved.Content, now.Content))
		return torn || bytes.Equal(now.Content, r.Content) || r.isHeaded(now)
	}
	return false
}

// isHeaded reports whether the file says that a tunnel made it.
func (r *resolvChange) isHeaded(now savedFile) bool {
	return now.Kind == kindFile && bytes.HasPrefix(now.Content, []byte(resolvHeader))
}

func (r *resolvChange) note(err error) string {
	why := "make it writable"
	switch {
	case errors.Is(err, errWritten):
		why = "stop that program"
	case errors.Is(err, unix.EROFS):
		why = "it is on a read-only file system"
	case errors.Is(err, unix.EPERM):
		why = "it may be immutable (see lsattr; chattr -i makes it writable)"
	}
	return fmt.Sprintf("cannot replace /etc/resolv.conf (%v): %s; programs go on asking its name servers, through the tunnel; those on this machine's loopback are asked outside it", err, why)
}

// Kinds of savedFile.
const (
	kindMissing = "missing"
	kindFile    = "file"
	kindLink    = "link"
)

// savedFile is a file as it was: what is needed to make it again.
type savedFile struct {
	Kind    string
	Content []byte            `json:",omitempty"`
	Target  string            `json:",omitempty"` // of a link
	Mode    uint32            `json:",omitempty"` // permissions of a file
	UID     int               `json:",omitempty"`
	GID     int               `json:",omitempty"`
	Xattrs  map[string][]byte `json:",omitempty"` // of a file
	Mtime   unix.Timespec     // of a file
}

func (f savedFile) equal(o savedFile) bool {
	return f.Kind == o.Kind && bytes.Equal(f.Content, o.Content) && f.Target == o.Target &&
		f.Mode == o.Mode && f.UID == o.UID && f.GID == o.GID
}

// readFile describes what is at path, without following a link there.
func readFile(path string) (savedFile, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); errors.Is(err, unix.ENOENT) {
		return savedFile{Kind: kindMissing}, nil
	} else if err != nil {
		return savedFile{}, fmt.Errorf("look at %s: %w", path, err)
	}
	f := savedFile{Kind: kindFile, UID: int(st.Uid), GID: int(st.Gid)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		f.Kind, f.Target = kindLink, target
		return f, err
	case unix.S_IFREG:
	default:
		return savedFile{}, fmt.Errorf("%s is neither a file nor a link", path)
	}
	if st.Size > maxResolvConf {
		return savedFile{}, fmt.Errorf("%s is larger than %d bytes", path, maxResolvConf)
	}
	f.Mode, f.Mtime, f.Xattrs = st.Mode&0o7777, st.Mtim, readXattrs(path)
	var err error
	f.Content, err = readBounded(path)
	return f, err
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxResolvConf+1))
	if err == nil && len(b) > maxResolvConf {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxResolvConf)
	}
	return b, err
}

// newName is where the next file is made, in the same directory so that it can
// be renamed over path.
func newName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".nws-vpn")
}

// putFile makes path as f says: by renaming a new file over it, so that a reader
// finds either the old or the new one; or, where that cannot be done (a file
// that is mounted there, a directory that cannot be written), in place.
func putFile(e *env, path string, f savedFile) error {
	err := renameOver(e, path, f)
	if err == nil {
		return nil
	}
	os.Remove(newName(path))
	if st, serr := os.Lstat(path); serr != nil || !st.Mode().IsRegular() || f.Kind != kindFile {
		return err
	}
	for _, errno := range []unix.Errno{unix.EBUSY, unix.EXDEV, unix.EROFS, unix.EACCES, unix.EPERM} {
		if errors.Is(err, errno) {
			return writeInPlace(e, path, f)
		}
	}
	return err
}

func renameOver(e *env, path string, f savedFile) error {
	if f.Kind == kindMissing {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, syncDir(path))
	}
	next := newName(path)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeFile(next, f); err != nil {
		return err
	}
	if err := e.step("rename over " + path); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(path)
}

// makeFile makes a new file or link with everything f knows, on disk.
func makeFile(path string, f savedFile) error {
	if f.Kind == kindLink {
		if err := os.Symlink(f.Target, path); err != nil {
			return err
		}
		return os.Lchown(path, f.UID, f.GID)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(f.Content)
	err = errors.Join(err, out.Chown(f.UID, f.GID), unix.Fchmod(int(out.Fd()), f.Mode))
	for name, value := range f.Xattrs {
		// Best effort: a label the kernel made itself cannot always be set.
		_ = unix.Fsetxattr(int(out.Fd()), name, value, 0)
	}
	err = errors.Join(err, out.Sync(), out.Close())
	if err == nil {
		err = setMtime(path, f.Mtime)
	}
	return err
}

// writeInPlace gives an existing file the content, and no more: what owns the
// mount decides the rest.
func writeInPlace(e *env, path string, f savedFile) error {
	out, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if err = out.Truncate(0); err == nil {
		if err = e.step("write " + path); err == nil {
			_, err = out.Write(f.Content)
		}
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	return setMtime(path, f.Mtime)
}

// setMtime gives a file back its time; the zero time leaves it at now.
func setMtime(path string, t unix.Timespec) error {
	if t == (unix.Timespec{}) {
		return nil
	}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, t}, unix.AT_SYMLINK_NOFOLLOW)
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readXattrs returns the extended attributes (labels, access lists), as far as
// they can be read.
func readXattrs(path string) map[string][]byte {
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil || n == 0 {
		return nil
	}
	attrs := make(map[string][]byte)
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names[:n], []byte{0}), []byte{0}) {
		value := make([]byte, 4096)
		if n, err := unix.Lgetxattr(path, string(name), value); err == nil {
			attrs[string(name)] = value[:n]
		}
	}
	return attrs
}

// text is what a reader of the saved file would see; that of a link is what is
// behind it now.
func (f savedFile) text(e *env) ([]byte, error) {
	if f.Kind != kindLink {
		return f.Content, nil
	}
	target := f.Target
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(e.resolvConf), target)
	}
	return readBounded(target)
}
