package main

import (
	"bufio"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
)

// Before an exit is asked for what takes long, it is asked whether it is alive:
// one that is stopped is found out soon.
func TestExitIsAskedWhetherItIsAlive(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, control.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	go func() {
		defer close(asked)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close() // without an answer
		if q, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			asked <- q.Method + " " + q.URL.Path
		}
	}()
	socket := exitSocket{stateDir: dir}
	if _, err := socket.ask(t.Context(), time.Hour, "POST", "/restart"); err == nil {
		t.Error("an answer")
	}
	l.Close()
	if got := <-asked; got != "GET /alive" {
		t.Errorf("asked first: %q", got)
	}
}
