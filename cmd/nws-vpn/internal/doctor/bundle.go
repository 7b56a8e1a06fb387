package doctor

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// File is a text in a bundle.
type File struct {
	Name string
	Text string
}

// maxTail bounds what is taken of a file into a bundle, in bytes: its end.
const maxTail = 256 << 10

// ReadTail returns the end of the file at path, from the beginning of a line, or
// why it cannot be read, as a File of that name.
func ReadTail(name, path string) File {
	text, err := readTail(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = "(there is none)\n"
	case err != nil:
		text = fmt.Sprintf("(cannot be read: %v)\n", err)
	}
	return File{Name: name, Text: text}
}

func readTail(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	skipped := max(0, st.Size()-maxTail)
	b, err := io.ReadAll(io.NewSectionReader(f, skipped, maxTail))
	if err != nil {
		return "", err
	}
	text := strings.ToValidUTF8(string(b), "?")
	if skipped > 0 {
		_, text, _ = strings.Cut(text, "\n")
		text = "(what was before is left out)\n" + text
	}
	return text, nil
}

// WriteBundle writes the files as a .tar.gz that only its owner can read. It
// replaces nothing: the file at path must not exist.
func WriteBundle(path string, files []File) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("doctor: write the bundle: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(path)
			err = fmt.Errorf("doctor: write the bundle: %w", err)
		}
	}()
	if err := f.Chmod(0o600); err != nil { // whatever the umask
		return err
	}
	return pack(f, files)
}

func pack(w io.Writer, files []File) error {
	gz := gzip.NewWriter(w)
	t := tar.NewWriter(gz)
	for _, file := range files {
		h := &tar.Header{Name: "nws-vpn-doctor/" + file.Name, Mode: 0o600, Size: int64(len(file.Text)), ModTime: time.Unix(0, 0)}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(t, file.Text); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), gz.Close())
}
