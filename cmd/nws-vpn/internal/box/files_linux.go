package box

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// stage is where our files are mounted while they are made: any directory that
// every machine has.
const stage = "/tmp"

// maxNSSwitch bounds what is read of nsswitch.conf, in bytes.
const maxNSSwitch = 64 << 10

// hidden returns what would do a command's work outside its box. A path that is
// not there is for the caller to leave out.
func hidden(uid int, env func(string) string) (dirs, files []string) {
	for _, run := range []string{"/run/", "/var/run/"} {
		// Look-ups.
		dirs = append(dirs, run+"nscd", run+"systemd/resolve", run+"avahi-daemon")
		// Programs that connect, or start others that do, for whoever asks.
		dirs = append(dirs, run+"dbus", run+"podman", run+"containerd", run+"docker")
		files = append(files, run+"docker.sock", run+"snapd.socket", run+"systemd/private")
	}
	own := []string{fmt.Sprintf("/run/user/%d", uid)}
	if x := env("XDG_RUNTIME_DIR"); filepath.IsAbs(x) && filepath.Clean(x) != own[0] {
		own = append(own, filepath.Clean(x))
	}
	for _, run := range own {
		dirs = append(dirs, run+"/systemd", run+"/dbus-1", run+"/gvfsd", run+"/podman")
		files = append(files, run+"/bus", run+"/docker.sock", run+"/gnupg/S.dirmngr")
	}
	if home := env("HOME"); filepath.IsAbs(home) {
		files = append(files, filepath.Join(home, ".gnupg/S.dirmngr"))
	}
	for _, name := range []string{"DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"} {
		files = append(files, busPaths(env(name))...)
	}
	return dirs, files
}

// busPaths returns the files that a D-Bus address names (D-Bus Specification,
// "Server Addresses"). Abstract ones are of a network namespace anyway.
func busPaths(address string) (paths []string) {
	for _, one := range strings.Split(address, ";") {
		rest, ok := strings.CutPrefix(one, "unix:")
		if !ok {
			continue
		}
		for _, pair := range strings.Split(rest, ",") {
			if path, ok := strings.CutPrefix(pair, "path="); ok && filepath.IsAbs(unescape(path)) {
				paths = append(paths, unescape(path))
			}
		}
	}
	return paths
}

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

func unescape(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(e string) string {
		var b byte
		fmt.Sscanf(e, "%%%02x", &b)
		return string([]byte{b})
	})
}

// hostsLine is the entry of nsswitch.conf that says how names are looked up, in
// every form that libc takes, without a colon too.
var hostsLine = regexp.MustCompile(`(?m)^[ \t\v\f\r]*hosts([ \t\v\f\r:].*)?$`)

// nsSwitch is the machine's nsswitch.conf, but names come from /etc/hosts and
// the name servers alone.
func nsSwitch(old []byte) []byte {
	const ours = "hosts: files dns"
	text := hostsLine.ReplaceAll(old, nil)
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	return append(text, ours+"\n"...)
}

func resolvConf(servers []netip.Addr) []byte {
	b := []byte("# Inside `nws-vpn exec`: names are looked up by way of the tunnel.\n")
	for _, s := range servers {
		b = fmt.Appendf(b, "nameserver %s\n", s)
	}
	return b
}

// cover is a file or directory of ours over one of the machine's.
type cover struct {
	path string
	over int    // opened without access
	by   string // in stage
}

// arrangeFiles puts our resolv.conf and nsswitch.conf over the machine's, and
// nothing over what is hidden. It is the caller's mount namespace that changes.
func arrangeFiles(servers []netip.Addr) (notes []string, err error) {
	resolv, nss := resolvConf(servers), []byte(nil)
	var covers []cover
	defer func() {
		for _, c := range covers {
			unix.Close(c.over)
		}
	}()
	add := func(path, by string, flags int) (found bool, err error) {
		// Before stage covers anything.
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrPermission):
			return false, nil // out of the command's reach too
		case err != nil:
			return false, fmt.Errorf("look at %s: %w", path, err)
		}
		covers = append(covers, cover{path, fd, by})
		return true, nil
	}
	// The link itself where it is one: it may lead to what is hidden.
	found, err := add("/etc/resolv.conf", "resolv.conf", unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	if !found {
		notes = append(notes, "this machine has no /etc/resolv.conf to put the tunnel's over: many programs will not find names")
	}
	if old, rerr := readBounded("/etc/nsswitch.conf", maxNSSwitch); rerr == nil {
		nss = nsSwitch(old)
		if _, err := add("/etc/nsswitch.conf", "nsswitch.conf", unix.O_NOFOLLOW); err != nil {
			return nil, err
		}
	}
	dirs, files := hidden(os.Geteuid(), os.Getenv)
	for _, path := range dirs {
		if _, err := add(path, "directory", unix.O_DIRECTORY); err != nil {
			return nil, err
		}
	}
	for _, path := range files {
		if _, err := add(path, "file", 0); err != nil {
			return nil, err
		}
	}
	return notes, apply(covers, map[string][]byte{"resolv.conf": resolv, "nsswitch.conf": nss, "file": nil})
}

// apply mounts what covers have, from files with these contents. Nobody can
// write to them.
func apply(covers []cover, contents map[string][]byte) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", stage, "tmpfs", flags, "mode=755,size=256k"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	if err := os.Mkdir(stage+"/directory", 0o755); err != nil {
		return err
	}
	for name, text := range contents {
		if err := os.WriteFile(filepath.Join(stage, name), text, 0o444); err != nil {
			return err
		}
	}
	if err := unix.Mount("", stage, "", flags|unix.MS_REMOUNT|unix.MS_RDONLY, "mode=755,size=256k"); err != nil {
		return fmt.Errorf("make the tmpfs read-only: %w", err)
	}
	for _, c := range covers {
		at := fmt.Sprintf("/proc/self/fd/%d", c.over)
		if err := unix.Mount(filepath.Join(stage, c.by), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", c.path, err)
		}
	}
	if err := unix.Unmount(stage, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the tmpfs: %w", err)
	}
	return verify(covers, contents)
}

// verify looks whether the covers are what is found now.
func verify(covers []cover, contents map[string][]byte) error {
	for _, c := range covers {
		want, isFile := contents[c.by]
		if !isFile {
			entries, err := os.ReadDir(c.path)
			if err != nil || len(entries) > 0 {
				return fmt.Errorf("%s is not hidden: %d entries, %v", c.path, len(entries), err)
			}
			continue
		}
		got, err := readBounded(c.path, maxNSSwitch+1024)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not covered: %d bytes, %v", c.path, len(got), err)
		}
	}
	return nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	// A socket or a FIFO in its place must not hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > limit:
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}
