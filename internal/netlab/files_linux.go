package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// privateFiles gives the calling thread's new mount namespace a /run and an
// /etc of its own. A whole /etc, not a file mounted over resolv.conf, so that
// it does not matter what the machine has there, and so that a program may
// replace the file by renaming another over it. An own /run hides the machine's
// name service daemons: the sockets by which a libc reaches them are files, and
// would lead out of the namespace.
func privateFiles(hostname string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := mountTmpfs("/run"); err != nil {
		return err
	}
	const old = "/run/etc"
	if err := os.Mkdir(old, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/etc", old, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /etc: %w", err)
	}
	if err := mountTmpfs("/etc"); err != nil {
		return err
	}
	own := map[string]string{
		"resolv.conf":   "",
		"hostname":      hostname + "\n",
		"hosts":         "127.0.0.1 localhost " + hostname + "\n::1 localhost ip6-localhost\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
	}
	if err := mirror(old, "/etc", own); err != nil {
		return err
	}
	for name, text := range own {
		if err := os.WriteFile(filepath.Join("/etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := unix.Unmount(old, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", old, err)
	}
	return os.Remove(old)
}

func mountTmpfs(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

// mirror makes dst show the entries of src, without those named in except.
// Entries are bind mounts, not symbolic links, so that relative links inside
// them still lead where they did.
func mirror(src, dst string, except map[string]string) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := except[e.Name()]; ok {
			continue
		}
		from, to := filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())
		switch {
		case e.Type()&os.ModeSymlink != 0:
			var target string
			if target, err = os.Readlink(from); err == nil {
				err = os.Symlink(target, to)
			}
		case e.IsDir():
			err = bind(from, to, os.Mkdir(to, 0o755))
		case e.Type().IsRegular():
			err = bind(from, to, os.WriteFile(to, nil, 0o644))
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("mirror %s: %w", from, err)
		}
	}
	return nil
}

func bind(from, to string, made error) error {
	if made != nil {
		return made
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

// SmallDisk mounts an empty file system of so many bytes on a directory of the
// host, which it makes.
func (h *Host) SmallDisk(dir string, bytes int) error {
	err := h.Do(func() error {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=700,size=%d", bytes))
	})
	if err != nil {
		return fmt.Errorf("netlab: small disk on %s of %s: %w", dir, h.name, err)
	}
	return nil
}

// ReadOnly makes a directory of the host's own, /etc or /run, read-only.
func (h *Host) ReadOnly(dir string) error {
	err := h.Do(func() error { return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") })
	if err != nil {
		return fmt.Errorf("netlab: make %s of %s read-only: %w", dir, h.name, err)
	}
	return nil
}
