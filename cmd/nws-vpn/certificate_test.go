package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

func TestOpenCertificate(t *testing.T) {
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	e := &config.Exit{
		KeyFile:  filepath.Join(t.TempDir(), "key"),
		Relays:   []string{"ws://10.0.0.1:7777", "wss://relay.example"},
		Services: map[uint16]exit.Target{80: {Network: "tcp", Address: "127.0.0.1:80"}},
	}
	if keeper, err := openCertificate(e, key.Public()); keeper != nil || err != nil {
		t.Errorf("no service needs a certificate: %v, %v", keeper, err)
	}
	e.Services[443] = exit.Target{Network: "tcp", Address: "127.0.0.1:80", TLS: true}
	keeper, err := openCertificate(e, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(e.KeyFile + ".tls")
	if err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("the file beside the key: %v, %v", info, err)
	}
	again, err := openCertificate(e, key.Public())
	if err != nil || !again.Certificate().Equal(keeper.Certificate()) {
		t.Errorf("a second start has another certificate, %v", err)
	}
	e.CertificateFile = filepath.Join(t.TempDir(), "none", "file")
	if _, err := openCertificate(e, key.Public()); err == nil || !strings.Contains(err.Error(), "certificate_file") {
		t.Errorf("a file that cannot be made: %v", err)
	}
}

// What is published verifies, and holds no private key. Relays that refuse are
// asked again.
func TestCertificatePublisher(t *testing.T) {
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cert")
	keeper, err := cert.OpenKeeper(path, key.Public(), nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	var published []byte
	p := &certificatePublisher{keeper: keeper, key: key, out: &out, log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	p.publish = func(_ context.Context, event []byte, _ [32]byte) error {
		published = bytes.Clone(event)
		cancel()
		return nil
	}
	p.serve(ctx)
	ev, err := envelope.ParseEvent(published)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cert.Verify(&ev, key.Public(), time.Now())
	if err != nil || !a.Certificate.Equal(keeper.Certificate()) {
		t.Errorf("published %v, %v", a, err)
	}
	if !strings.Contains(out.String(), "certificate published, valid until 2") {
		t.Errorf("printed %q", out.String())
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(string(file), "-----")[2] // of the first block
	for _, line := range strings.Fields(secret) {
		if strings.Contains(string(published), line) || !strings.Contains(string(file), "PRIVATE KEY") {
			t.Error("the private key is published")
		}
	}

	out.Reset()
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	p.publish = func(context.Context, []byte, [32]byte) error { return errors.New("all relays refuse") }
	if err := p.once(ctx, time.Now()); err == nil || !strings.Contains(err.Error(), "all relays refuse") || out.Len() > 0 {
		t.Errorf("nobody took it: %v, %q", err, out.String())
	}
	old := keeper.Certificate()
	p.publish = func(context.Context, []byte, [32]byte) error { return nil }
	if err := p.once(ctx, keeper.RenewAt()); err != nil || keeper.Certificate().Equal(old) {
		t.Errorf("not renewed when it was time: %v", err)
	}
}
