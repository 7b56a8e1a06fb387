package control

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// Who attends a program hears what it leaves, and is waited for.
func TestAttend(t *testing.T) {
	dir := t.TempDir()
	never := func(leaves string) { t.Errorf("left: %s", leaves) }
	if err := Attend(t.Context(), dir, never); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody is there: %v", err)
	}
	ending, let := make(chan struct{}), make(chan struct{})
	h := attended(ending, func() string { return LeavesOpen })
	s, err := Serve(dir, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(ending)
		h(w, r)
		close(let)
	}))
	if err != nil {
		t.Fatal(err)
	}
	heard := ""
	err = Attend(t.Context(), dir, func(leaves string) {
		heard = leaves
		select {
		case <-let:
			t.Error("it was not waited for")
		default:
		}
	})
	if err != nil || heard != LeavesOpen {
		t.Errorf("it leaves %q, %v", heard, err)
	}
	<-let
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestAttendedUntilClose(t *testing.T) {
	dir := t.TempDir()
	s, err := Listen(dir, &fake{down: make(chan bool, 1)})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	left, err := open(gone, new(atomic.Int64), dir, "GET", "/attend", nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // who goes before the end is forgotten
	left.Body.Close()
	resp, err := open(t.Context(), new(atomic.Int64), dir, "GET", "/attend", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	word, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || word != LeavesClosed+"\n" {
		t.Errorf("it said %q, %v", word, err)
	}
	resp.Body.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// A program that dies says nothing.
func TestAttendTheKilled(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	died := make(chan struct{})
	go func() {
		defer close(died)
		if conn, err := l.Accept(); err == nil {
			conn.Read(make([]byte, 1000))
			conn.Write([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
			conn.Close()
		}
	}()
	if err := Attend(t.Context(), dir, func(leaves string) { t.Errorf("left: %s", leaves) }); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("a program that died: %v", err)
	}
	<-died
}
