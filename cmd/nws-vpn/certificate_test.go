package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func TestOpenCertificate(t *testing.T) {
	key := envelopetest.NewKey(t)
	e := &config.ExitName{
		KeyFile:  filepath.Join(t.TempDir(), "key"),
		Relays:   []string{"ws://10.0.0.1:7777", "wss://relay.example"},
		Services: map[uint16]exit.Target{80: {Network: "tcp", Address: "127.0.0.1:80"}},
	}
	if keeper, err := openCertificate(e, e.Relays, key.Public()); keeper != nil || err != nil {
		t.Errorf("no service needs a certificate: %v, %v", keeper, err)
	}
	e.Services[443] = exit.Target{Network: "tcp", Address: "127.0.0.1:80", TLS: true}
	keeper, err := openCertificate(e, e.Relays, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(e.KeyFile + ".tls")
	if err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("the file beside the key: %v, %v", info, err)
	}
	again, err := openCertificate(e, e.Relays, key.Public())
	if err != nil || !again.Certificate().Equal(keeper.Certificate()) {
		t.Errorf("a second start has another certificate, %v", err)
	}
	e.CertificateFile = filepath.Join(t.TempDir(), "none", "file")
	if _, err := openCertificate(e, e.Relays, key.Public()); err == nil || !strings.Contains(err.Error(), "certificate_file") {
		t.Errorf("a file that cannot be made: %v", err)
	}
}

// What is published verifies, and holds no private key.
func TestCertificatePublisher(t *testing.T) {
	key := envelopetest.NewKey(t)
	path := filepath.Join(t.TempDir(), "cert")
	keeper, err := cert.OpenKeeper(path, key.Public(), nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	var published []byte
	relays := []string{"ws://a", "ws://b"}
	p := &certificatePublisher{keeper: keeper, key: key, relays: relays[:1], out: &out, log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	p.publish = func(_ context.Context, _ string, event []byte, _ [32]byte) error {
		published = bytes.Clone(event)
		cancel()
		return nil
	}
	p.serve(ctx)
	a, err := cert.Verify(envelopetest.Parse(t, published), key.Public(), time.Now())
	if err != nil || !a.Certificate.Equal(keeper.Certificate()) {
		t.Errorf("published %v, %v", a, err)
	}
	if !strings.Contains(out.String(), "certificate published on ws://a, valid until 2") {
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
	p.publish = func(_ context.Context, relay string, _ []byte, _ [32]byte) error {
		if relay == "ws://b" {
			return errors.New("it refuses")
		}
		return nil
	}
	left := p.tell(t.Context(), time.Now(), relays)
	if !slices.Equal(left, relays[1:]) || strings.Contains(out.String(), "ws://b") || !strings.Contains(log.String(), "it refuses") {
		t.Errorf("one relay refuses: left are %q, printed %q, logged %q", left, out.String(), log.String())
	}
}

// Relays that refuse are asked again, all are told every few hours, and of a new
// certificate at once.
func TestCertificateIsPublishedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, keeper, _ := site(t, time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		told := make(map[string][]time.Duration)
		seen := make(map[string]bool)
		var mu sync.Mutex
		p := &certificatePublisher{
			keeper: keeper, key: key, relays: []string{"ws://a", "ws://b"}, out: io.Discard, log: slog.New(slog.DiscardHandler),
			publish: func(_ context.Context, relay string, event []byte, _ [32]byte) error {
				mu.Lock()
				defer mu.Unlock()
				ev, err := envelope.ParseEvent(event)
				if err != nil {
					return err
				}
				a, err := cert.Verify(&ev, key.Public(), time.Now())
				if err != nil {
					return err
				}
				seen[string(a.PEM())] = true
				told[relay] = append(told[relay], time.Since(start))
				if relay == "ws://b" && len(told[relay]) < 4 {
					return errors.New("not now")
				}
				return nil
			},
		}
		forgot := make(chan string)
		stop := publishCertificate(ctx, p, func(ctx context.Context, _ []string, made func(string)) {
			made(<-forgot)
		})
		time.Sleep(time.Hour)
		forgot <- "ws://a"
		time.Sleep(publishEvery - time.Hour + time.Minute)
		mu.Lock()
		wantA := []time.Duration{0, time.Hour, publishEvery}
		wantB := []time.Duration{0, time.Minute, 3 * time.Minute, 7 * time.Minute, publishEvery}
		if !slices.Equal(told["ws://a"], wantA) || !slices.Equal(told["ws://b"], wantB) || len(seen) != 1 {
			t.Errorf("told at %v, of %d certificates", told, len(seen))
		}
		mu.Unlock()
		time.Sleep(30 * 24 * time.Hour)
		mu.Lock()
		if len(seen) != 2 {
			t.Errorf("%d certificates in a month", len(seen))
		}
		mu.Unlock()
		cancel()
		stop()
	})
}
