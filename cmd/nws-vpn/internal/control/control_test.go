package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fake struct {
	down chan bool
	lock error
}

func (f *fake) Status() any      { return map[string]int{"schema": 1} }
func (f *fake) Down(unlock bool) { f.down <- unlock }
func (f *fake) Lock() error      { return f.lock }
func (f *fake) Confirm() error   { return errors.New("nothing to confirm") }
func (f *fake) Leaves() string   { return LeavesClosed }

// leak check 55: the socket and its directory are of their owner alone
func TestStatusAndDown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	f := &fake{down: make(chan bool, 1)}
	s, err := Listen(dir, f)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, SocketName): 0o600} {
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, fi.Mode().Perm(), err, want)
		}
	}
	got, err := Status(context.Background(), dir)
	if err != nil || string(got) != "{\"schema\":1}\n" {
		t.Errorf("Status = %q, %v", got, err)
	}
	for _, unlock := range []bool{false, true} {
		if err := Down(context.Background(), dir, unlock); err != nil {
			t.Fatal(err)
		}
		if got := <-f.down; got != unlock {
			t.Errorf("asked for unlock %v, and unlock was %v", unlock, got)
		}
	}
	if err := Lock(context.Background(), dir); err != nil {
		t.Error(err)
	}
	if err := Confirm(context.Background(), dir); err == nil || err.Error() != "nothing to confirm" {
		t.Errorf("Confirm: %v, want what the program says", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Status(context.Background(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after Close: %v, want ErrNotRunning", err)
	}
}

func TestSocketOfADeadProgramIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := Status(context.Background(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: %v, want ErrNotRunning", err)
	}
	s, err := Listen(dir, &fake{down: make(chan bool, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Status(context.Background(), dir); err != nil {
		t.Error(err)
	}
}

// A program that dies with the question unanswered is one that is not running.
func TestDownOfADyingProgram(t *testing.T) {
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
			conn.Close()
		}
	}()
	if err := Down(t.Context(), dir, false); !errors.Is(err, ErrNotRunning) {
		t.Errorf("down: %v", err)
	}
	<-died
}
