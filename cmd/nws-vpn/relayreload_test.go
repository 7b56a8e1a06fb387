package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip11"
)

// relayFile writes a configuration of section [relay].
func relayFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// described is what a relay says of itself.
func described(t *testing.T, url string, pool *tls.Config) (info nip11.Info) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(url, "ws", "http", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", nip11.ContentType)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: pool}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
		t.Fatal(err)
	}
	return info
}

// connectAs connects to a relay as somebody and subscribes to something.
func connectAs(t *testing.T, url string, pool *tls.Config, key envelope.SecretKey) *relay.Conn {
	t.Helper()
	c, err := relay.Dial(t.Context(), url, relay.Options{TLS: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	err = c.Subscribe(t.Context(), "s", []relay.Filter{{Kinds: []int{1}}}, func([]byte) {})
	if err == nil { // and the challenge has come before the answer
		err = c.Authenticate(t.Context(), func(_ context.Context, url, challenge string) ([]byte, [32]byte, error) {
			return envelope.Sign(nil, key, envelope.Template{
				Kind: 22242, CreatedAt: time.Now(), Tags: [][]string{{"relay", url}, {"challenge", challenge}},
			})
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRelayReloads what it can, names what it cannot, and takes nothing of a
// configuration that is wrong.
func TestRelayReloads(t *testing.T) {
	dir := t.TempDir()
	file, cert, key := filepath.Join(dir, "nws.toml"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	pool := &tls.Config{RootCAs: selfSigned(t, cert, key, 1)}
	files := "tls_cert = \"" + cert + "\"\ntls_key = \"" + key + "\"\n"
	member := envelopetest.NewKey(t)
	members := "members = [\"" + member.Public().NPub() + "\"]\n"
	var log bytes.Buffer
	run := &relayRun{level: new(slog.LevelVar), load: func() (*config.Config, error) { return config.Load(file) }}
	run.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: run.level}))
	var err error
	write := func(text string) { relayFile(t, file, text) }
	write("[relay]\n" + files)
	if run.cfg, err = run.load(); err != nil {
		t.Fatal(err)
	}
	run.server = serveTestRelay(t, func(c *config.Relay) { c.TLSCert, c.TLSKey = cert, key })
	url := run.server.URL()
	c := connectAs(t, url, pool, member)
	reload := func(text string, want ...string) {
		t.Helper()
		write(text)
		log.Reset()
		run.reload()
		for _, w := range want {
			if !strings.Contains(log.String(), w) {
				t.Errorf("after %q the log says\n%swant %s", text, log.String(), w)
			}
		}
	}

	reload("log_level = \"debug\"\n[relay]\n"+files+members+"min_pow = 3\n", `changed="[relay.members relay.min_pow log_level]"`)
	if info := described(t, url, pool); !info.Limitation.AuthRequired || info.Limitation.MinPoWDifficulty != 3 {
		t.Errorf("it says %+v", info.Limitation)
	}
	if run.level.Level() != slog.LevelDebug {
		t.Error("the log's level is as before")
	}
	for _, wrong := range []string{
		"[relay]\nmin_pow = 4\nmember = []\n", "[relay]\nmin_pow = 4\nmembers = [\"nobody\"]\n", "[[[",
		"[relay]\nmin_pow = 4\ntls_cert = \"/nonexistent/c\"\ntls_key = \"/nonexistent/k\"\n",
		"[relay]\nmin_pow = 4\nacme_hosts = [\"relay.example\"]\n" + files,
		"log_level = \"loud\"\n[relay]\nmin_pow = 4\n" + files,
	} {
		reload(wrong, "level=ERROR", "the old one stays")
		if info := described(t, url, pool); info.Limitation.MinPoWDifficulty != 3 || !info.Limitation.AuthRequired {
			t.Errorf("after %q it says %+v", wrong, info.Limitation)
		}
	}
	// Other files, and what takes a restart.
	newCert, newKey := filepath.Join(dir, "cert2"), filepath.Join(dir, "key2")
	pool = &tls.Config{RootCAs: selfSigned(t, newCert, newKey, 2)}
	reload("[relay]\ntls_cert = \""+newCert+"\"\ntls_key = \""+newKey+"\"\n"+members+"listen = \"127.0.0.1:1\"\nmetrics = \"127.0.0.1:2\"\n",
		"[relay.min_pow relay.tls_cert relay.tls_key log_level]", `keys="[relay.listen relay.metrics]"`)
	described(t, url, pool) // with the new certificate
	reload("[relay]\n"+members, `keys="[relay.listen relay.tls_cert relay.tls_key relay.metrics]"`)

	// Whoever is no member any more is cut; all that was no reason for it.
	if err := c.Err(); err != nil {
		t.Errorf("the connection has ended: %v", err)
	}
	reload("[relay]\nmembers = [\""+envelopetest.NewKey(t).Public().NPub()+"\"]\n", "relay.members")
	<-c.Done()
}

// TestRelayAsAService: it says when it listens, heeds SIGHUP and lives on.
func TestRelayAsAService(t *testing.T) {
	heard := manager(t)
	file := filepath.Join(t.TempDir(), "nws.toml")
	relayFile(t, file, "[relay]\nlisten = \"127.0.0.1:0\"\nname = \"before\"\n")
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var running sync.WaitGroup
	running.Go(func() {
		defer in.Close()
		if err := runRelay(ctx, in, func() (*config.Config, error) { return config.Load(file) }); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	if said := heard(); said != "READY=1" {
		t.Fatalf("the manager hears %q", said)
	}
	line := make([]byte, 100)
	n, err := out.Read(line)
	url, ok := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "relay listening ")
	if err != nil || !ok {
		t.Fatalf("it said %q, %v", line[:n], err)
	}
	relayFile(t, file, "[relay]\nlisten = \"127.0.0.1:0\"\nname = \"after\"\n")
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGHUP)
	}
	if err != nil {
		t.Skip("this system has no SIGHUP: ", err)
	}
	await.That(t, "the signal is heeded", func() bool { return described(t, url, nil).Name == "after" })
}
