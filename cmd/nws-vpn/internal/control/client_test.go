package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A program that is there and does not answer holds nobody up, whoever has set
// the bound, and is named.
func TestSilentProgram(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, byCaller := Do(short, dir, "GET", "/status")
	_, byUs := DoWithin(t.Context(), time.Millisecond, dir, "POST", "/drain")
	for _, err := range []error{byCaller, byUs, Down(short, dir, false), Post(short, dir, "/usage", []byte("x"))} {
		if !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("silence: %v", err)
		}
	}
	// The kernel has taken the connection, as it does for a stopped process.
	want := fmt.Sprintf("process %d", os.Getpid())
	for patience := time.Millisecond; runtime.GOOS == "linux"; patience *= 2 {
		_, err := DoWithin(t.Context(), patience, dir, "GET", "/status")
		if strings.Contains(err.Error(), want) {
			break
		}
		if patience > time.Minute {
			t.Fatalf("%v does not name the %s", err, want)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Do(gone, dir, "GET", "/status"); err == nil || errors.Is(err, ErrSilent) {
		t.Errorf("who has gone himself is told: %v", err)
	}
}
