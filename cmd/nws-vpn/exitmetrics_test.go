package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/exit"
)

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
	server, err := exit.New(exit.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := &exitRun{server: server, since: time.Now()}
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
	for _, want := range []string{"nws_exit_clients 10000\n", "nws_exit_refused_total{reason=\"special_address\"} 10000\n"} {
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
