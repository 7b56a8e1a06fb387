package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// liar starts a relay that answers every question with the same events.
func liar(t *testing.T, events ...[]byte) (url string) {
	t.Helper()
	relay := khatru.NewRelay()
	relay.QueryEvents = append(relay.QueryEvents, func(context.Context, nostr.Filter) (chan *nostr.Event, error) {
		answer := make(chan *nostr.Event, len(events))
		for _, text := range events {
			ev := new(nostr.Event)
			if err := ev.UnmarshalJSON(text); err != nil {
				t.Error(err)
			}
			answer <- ev
		}
		close(answer)
		return answer, nil
	})
	web := httptest.NewServer(relay)
	t.Cleanup(web.Close)
	return strings.Replace(web.URL, "http", "ws", 1)
}

// site is a key, its certificate, and the event about it made at now.
func site(t *testing.T, now time.Time) (envelope.SecretKey, *cert.Keeper, []byte) {
	t.Helper()
	key := envelopetest.NewKey(t)
	keeper, err := cert.OpenKeeper(filepath.Join(t.TempDir(), "cert"), key.Public(), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	event, _, err := cert.Append(nil, key, now, keeper.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	return key, keeper, event
}

func TestCert(t *testing.T) {
	now := time.Now()
	key, keeper, event := site(t, now)
	_, _, foreign := site(t, now)
	old, _, expired := site(t, now.Add(-60*24*time.Hour))
	hash, _, err := cert.AppendSPKI(nil, key, now, cert.SPKI(keeper.Certificate()), now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(event, []byte("TLS certificate of"), []byte("TLS certificate by"), 1)
	honest := liar(t, foreign, event)
	file := filepath.Join(t.TempDir(), "site.pem")
	for _, test := range []struct {
		site    string
		relay   string
		file    string
		wantErr string
	}{
		{site: key.Public().NPub() + ".nostr", relay: honest},
		{site: name.Name{Key: key.Public()}.Host(), relay: honest, file: file},
		{site: "blog.nostr", relay: honest},
		{site: name.Name{Key: key.Public()}.Host(), relay: liar(t), wantErr: "no certificate of this key has been published"},
		{site: key.Public().NPub(), relay: liar(t, foreign), wantErr: "by another key"},
		{site: key.Public().NPub(), relay: liar(t, forged), wantErr: "hash"},
		{site: key.Public().NPub(), relay: liar(t, hash), wantErr: "only the hash"},
		{site: old.Public().NPub(), relay: liar(t, expired), wantErr: "expired"},
		{site: key.Public().NPub(), wantErr: "--relay"},
		{site: name.Name{Key: key.Public(), Relays: []string{honest}}.Host(), wantErr: "--relay"}, // loopback, on the name's word
		{site: key.Public().NPub(), relay: "ws://127.0.0.1:1", wantErr: "127.0.0.1:1"},
		{site: "away.nostr", relay: honest, wantErr: "site:"},
	} {
		cfg := config.Default()
		cfg.Names = map[string]string{"blog": key.Public().NPub()}
		if test.relay != "" {
			cfg.Up.Relays = []string{test.relay}
		}
		var out bytes.Buffer
		err := runCert(t.Context(), &out, cfg, test.site, test.file)
		switch {
		case test.wantErr != "":
			if err == nil || !strings.Contains(err.Error(), test.wantErr) || out.Len() > 0 {
				t.Errorf("%s: %v and %q, want an error with %q", test.site, err, out.String(), test.wantErr)
			}
			continue
		case err != nil:
			t.Errorf("%s: %v", test.site, err)
			continue
		}
		text := out.Bytes()
		if test.file != "" {
			if text, err = os.ReadFile(test.file); err != nil {
				t.Error(err)
			}
		}
		want := (&cert.Attestation{Certificate: keeper.Certificate()}).PEM()
		if !bytes.Equal(text, want) {
			t.Errorf("%s: printed %q", test.site, text)
		}
	}
}

func TestCertRelays(t *testing.T) {
	n := name.Name{Relays: []string{"wss://a.example", "ws://10.0.0.1", "wss://own.example", "wss://127.0.0.1"}}
	got := certRelays(n, []string{"wss://own.example", "ws://10.0.0.2"})
	if want := []string{"wss://own.example", "ws://10.0.0.2", "wss://a.example"}; !slices.Equal(got, want) {
		t.Errorf("asks %q, want %q", got, want)
	}
}
