package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
)

// checkTLS finds what makes no sense about the relay's certificate.
func checkTLS(c *config.Relay) error {
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case c.TLSCert != "" && len(c.ACMEHosts) > 0:
		return errors.New("a certificate comes from files or by ACME, not both: leave --tls-cert or --acme-host out")
	}
	return nil
}

// relayTLS returns how the relay does TLS, nil for not at all, and the files that
// its certificate comes from, or nil.
func relayTLS(c *config.Relay, log *slog.Logger) (settings *tls.Config, files *certificateFiles, err error) {
	if err := checkTLS(c); err != nil {
		return nil, nil, err
	}
	switch {
	case c.TLSCert != "":
		files = &certificateFiles{cert: c.TLSCert, key: c.TLSKey, log: log}
		if _, err := files.get(time.Now()); err != nil {
			return nil, nil, err
		}
		settings = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.get(time.Now()) }}
	case len(c.ACMEHosts) > 0:
		dir := acmeDir(c, os.Getenv)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, fmt.Errorf("the directory for ACME: %w (acme_dir in section [relay] names another one)", err)
		}
		manager := &autocert.Manager{
			Prompt:     autocert.AcceptTOS,
			Cache:      autocert.DirCache(dir),
			HostPolicy: autocert.HostWhitelist(c.ACMEHosts...),
			Email:      c.ACMEEmail,
			Client:     &acme.Client{DirectoryURL: c.ACMEDirectory, UserAgent: "nws-vpn"},
		}
		settings = &tls.Config{GetCertificate: manager.GetCertificate, NextProtos: []string{acme.ALPNProto}}
	default:
		return nil, nil, nil
	}
	settings.MinVersion = tls.VersionTLS12
	settings.NextProtos = append([]string{"http/1.1"}, settings.NextProtos...) // no HTTP/2: websockets take connections over
	return settings, files, nil
}

// acmeDir is where the account and the certificates of ACME are kept: as
// configured, or in the service's own directory, or where root's relay has it.
func acmeDir(c *config.Relay, getenv func(string) string) string {
	if c.ACMEDir != "" {
		return c.ACMEDir
	}
	return filepath.Join(cmp.Or(service.StateDir(getenv), "/var/lib/nws-vpn"), "acme")
}

// certificateFiles is a certificate that is read anew after its files change.
type certificateFiles struct {
	log *slog.Logger

	mu        sync.Mutex
	cert, key string
	have      *tls.Certificate
	of        [2]time.Time // when the files were last modified
	checked   time.Time
}

// recheck is how often the files are looked at.
const recheck = 10 * time.Second

// get returns the newest certificate. After a change that makes no sense the old
// one stays.
func (f *certificateFiles) get(now time.Time) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.have != nil && now.Sub(f.checked) < recheck {
		return f.have, nil
	}
	f.checked = now
	of, err := modified(f.cert, f.key)
	if err == nil && f.have != nil && of == f.of {
		return f.have, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(f.cert, f.key)
	}
	if err == nil {
		f.warn()
	}
	switch {
	case err == nil:
		f.have, f.of = &pair, of
	case f.have == nil:
		return nil, fmt.Errorf("certificate: %w", keyfile.Explain(err))
	default:
		f.log.Warn("the relay's certificate cannot be read anew and stays the old one", "err", err)
	}
	return f.have, nil
}

// warn tells of a key that others may read. They may have reasons for it, such as
// a program that renews it, so that it is used all the same.
func (f *certificateFiles) warn() {
	if info, err := os.Stat(f.key); err == nil && keyfile.OpenToOthers(info) {
		f.log.Warn("others have access to the key of the relay's certificate: run chmod 600 on it, and have a new one made if somebody may have read it",
			"file", f.key, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
}

// prepare reads the certificate of other files. What it returns has the certificate
// come from there.
func (f *certificateFiles) prepare(cert, key string, now time.Time) (apply func(), err error) {
	next := certificateFiles{cert: cert, key: key, log: f.log}
	if _, err := next.get(now); err != nil {
		return nil, err
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.cert, f.key, f.have, f.of, f.checked = cert, key, next.have, next.of, now
	}, nil
}

func modified(paths ...string) (times [2]time.Time, err error) {
	for i, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return times, err
		}
		times[i] = info.ModTime()
	}
	return times, nil
}
