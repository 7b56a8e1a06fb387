package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// maxFile bounds how much of a file is read.
const maxFile = 64 << 10

// organization is in the subject of every certificate that this package makes.
const organization = "nws-vpn"

// issue makes a certificate for a new key, signed by the authority or, when
// that is nil, by itself.
func issue(template *x509.Certificate, authority *tls.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	return issueFor(key, template, authority)
}

// issueFor is issue for a key.
func issueFor(key *ecdsa.PrivateKey, template *x509.Certificate, authority *tls.Certificate) (*tls.Certificate, error) {
	parent, signer := template, any(key)
	if authority != nil {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// readPair reads a file that writePair has written. It refuses one that others
// have access to, and one whose certificate this program has not made: it would
// be replaced one day. No error repeats what is in it.
func readPair(path string) (*tls.Certificate, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	defer clear(text)
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, fmt.Errorf("cert: %s holds no certificate with its private key: move it away to have a new one made", path)
	}
	if made := pair.Leaf.Subject.Organization; len(made) != 1 || made[0] != organization || len(pair.Certificate) != 1 {
		return nil, fmt.Errorf("cert: %s holds a certificate that nws-vpn has not made: name another file", path)
	}
	return &pair, nil
}

func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened: a pipe would hold us up
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file with a key", path)
	}
	// Mode bits say nothing about access on Windows.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("others have access to %s (mode %04o): run `chmod 600 %s`, and remove it instead if somebody may have read it", path, mode, path)
	}
	return os.ReadFile(path)
}

// writePair writes a certificate and its private key into one file, which only
// its owner can read, so that one is never there without the other. Unless it
// replaces, an existing file stays, and the error is fs.ErrExist.
func writePair(path string, pair *tls.Certificate, replace bool) (err error) {
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return fmt.Errorf("cert: %w", err)
	}
	defer clear(key)
	var text bytes.Buffer
	defer func() { clear(text.Bytes()) }()
	fmt.Fprintf(&text, "Made by nws-vpn. The private key is for this machine alone.\n")
	pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	if err := writeFile(path, text.Bytes(), replace); err != nil {
		return fmt.Errorf("cert: %w", err)
	}
	return nil
}

// writeFile makes the file whole or not at all.
func writeFile(path string, text []byte, replace bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if !replace {
		err := os.Link(f.Name(), path)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		// The file system has no links.
		if _, err := os.Lstat(path); err == nil {
			return fs.ErrExist
		}
	}
	return os.Rename(f.Name(), path)
}
