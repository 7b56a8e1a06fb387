//go:build unix

package main

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A process that takes the place of another one goes on with its guard, and does
// not start one anew when the tunnel is confirmed.
func TestRollbackOutlivesAReload(t *testing.T) {
	in, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	heard, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	guard := exec.Command("cat")
	guard.Stdin, guard.Stdout = in, out
	if err := guard.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	t.Setenv(restartedEnv, "1")
	t.Setenv(rollbackEnv, "")
	first := &rollback{guard: guard.Process.Pid, pipe: pipe}
	if err := first.leave(); err != nil {
		t.Fatal(err)
	}
	pipe.Close() // as when another program is executed
	second, err := guardRollback(stateDirs{t.TempDir()}, time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.confirm(); err != nil {
		t.Error(err)
	}
	if word, err := io.ReadAll(heard); err != nil || string(word) != wordConfirmed+"\n" {
		t.Errorf("the guard hears %q, %v", word, err)
	}
	for range 2 { // reloads
		if err := second.leave(); err != nil {
			t.Fatal(err)
		}
		if second, err = guardRollback(stateDirs{t.TempDir()}, time.Hour, true); second != nil || err != nil {
			t.Fatalf("after confirm, a guard again: %+v, %v", second, err)
		}
	}
	t.Setenv(rollbackEnv, "nonsense")
	if _, err := guardRollback(stateDirs{t.TempDir()}, time.Hour, true); err == nil {
		t.Error("a guard that nobody knows is taken for one")
	}
}

// A tunnel that was never up leaves no guard, which would undo what another one
// does. One that does not begin anew leaves a machine that is closed to its guard.
func TestAbandonedTunnelLetsItsGuardGo(t *testing.T) {
	for _, test := range []struct {
		restarted string
		closed    bool
		want      string
	}{{"", false, wordConfirmed + "\n"}, {"", true, wordConfirmed + "\n"}, {"1", true, ""}, {"1", false, wordConfirmed + "\n"}} {
		t.Setenv(restartedEnv, test.restarted)
		heard, pipe, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer heard.Close()
		s := testSupervisor(t, new(stubbornMachine))
		s.rollback, s.found = &rollback{pipe: pipe}, test.closed
		if err := s.abandon(); err != nil {
			t.Error(err)
		}
		pipe.Close() // as at the end of the process
		if word, err := io.ReadAll(heard); err != nil || string(word) != test.want {
			t.Errorf("restarted: %q, closed: %v; the guard hears %q, %v", test.restarted, test.closed, word, err)
		}
	}
}

// The guard of a tunnel that has ended already ends nobody in its place.
func TestGuardEndsItsParentOnly(t *testing.T) {
	stranger := exec.Command("cat")
	in, err := stranger.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	endParent(stranger.Process.Pid)
	in.Close()
	if err := stranger.Wait(); err != nil {
		t.Errorf("a process that has not started the guard: %v", err)
	}
}
