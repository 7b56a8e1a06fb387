package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// bareExit is an exit that nobody reaches.
func bareExit(t *testing.T, c exit.Config) *exitRun {
	t.Helper()
	server, err := exit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	cfg := config.Default()
	book, err := openBook(t.TempDir(), &cfg.Exit)
	if err != nil {
		t.Fatal(err)
	}
	return &exitRun{
		server: server, book: book, log: quiet, cfg: cfg, started: cfg, since: time.Now(),
		replaced: make(chan struct{}), leaving: make(chan struct{}),
	}
}

// strangerRequest is a request of one of many clients.
type strangerRequest struct{ client [32]byte }

func (strangerRequest) Network() string            { return "tcp" }
func (strangerRequest) Address() string            { return "192.168.7.7:80" }
func (strangerRequest) Accept() (net.Conn, error)  { return nil, errors.New("gone") }
func (strangerRequest) Reject(error)               {}
func (r strangerRequest) Client() ([32]byte, bool) { return r.client, true }

// leak check 54: the figures are as many for 10,000 npubs as for none, and name
// nobody and no destination; accounts are listed only when asked for
func TestFiguresAreBounded(t *testing.T) {
	r := bareExit(t, exit.Config{Nameservers: []exit.Nameserver{deadNameserver(t)}})
	server := r.server
	var before, after bytes.Buffer
	if err := r.writeMetrics(&before); err != nil {
		t.Fatal(err)
	}
	const clients = 10_000
	for i := range clients {
		var key [32]byte
		binary.BigEndian.PutUint64(key[:], uint64(i)+1)
		server.Handle(t.Context(), strangerRequest{key})
	}
	if err := r.writeMetrics(&after); err != nil {
		t.Fatal(err)
	}
	if b, a := strings.Count(before.String(), "\n"), strings.Count(after.String(), "\n"); b != a || b == 0 {
		t.Errorf("%d lines before, %d with many clients", b, a)
	}
	for _, want := range []string{"nws_exit_clients 10000\n", "nws_exit_refused_total{reason=\"special_address\"} 10000\n", "\nnws_build_info{version=", "\nprocess_start_time_seconds 1"} {
		if !strings.Contains(after.String(), want) {
			t.Errorf("no line %q", want)
		}
	}
	for _, not := range []string{"npub", "192.168", strings.Repeat("0", 40)} {
		if strings.Contains(after.String(), not) {
			t.Errorf("the figures hold %q", not)
		}
	}
	if s := r.status(3); s.ClientsKnown != clients || len(s.Clients) != 3 || s.Clients[0].NPub == "" || s.Clients[0].Refused["special_address"] != 1 {
		t.Errorf("%d clients known, shown: %+v", s.ClientsKnown, s.Clients)
	}
	if s := r.status(0); len(s.Clients) != 0 {
		t.Error("clients that were not asked for")
	}
}

// figures are what an exit shows at an address.
func figures(t *testing.T, address string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhatOperatorsWatch(t *testing.T) {
	dead := deadNameserver(t)
	e := newTestExit(t, fmt.Sprintf("metrics = \"127.0.0.1:0\"\nadmission = \"allowlist\"\nnameservers = [%q]\n", dead))
	// This is said before it is ready, but after the control socket is there.
	at := strings.TrimPrefix(e.start(e.flags, "metrics on ").said, "metrics on ")
	await.That(t, "the exit is connected to its relay", func() bool {
		return strings.Contains(figures(t, at), fmt.Sprintf("\nnws_exit_relay_connected{relay=%q} 1\n", e.relay))
	})
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	book, err := openBook(e.flags.keyPath+".state", &config.Default().Exit)
	if err != nil {
		t.Fatal(err)
	}
	if err := book.Block(key.Public(), time.Time{}, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	text := figures(t, at)
	for _, want := range []string{
		"nws_build_info{version=", "process_start_time_seconds 1", "nws_exit_bans 1\n", "nws_exit_draining 0\n", "nws_exit_greetings_total 0\n",
		"nws_exit_greetings_refused_total{outcome=\"busy\"} 0\n", fmt.Sprintf("nws_exit_nameserver_failing{server=%q} 0\n", dead),
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
	// A sum over an outcome counts nothing twice.
	if strings.Contains(text, "=\"all\"") {
		t.Error("all are one of the outcomes")
	}
	s := e.status()
	if s.Admission != config.AdmitListed || s.Bans != 1 || s.Policy != "open" || s.Rules != 0 {
		t.Errorf("%+v", s)
	}
	var out bytes.Buffer
	if err := printExitReport(&out, &s, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"allowlist, 1 banned\n", "open\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
