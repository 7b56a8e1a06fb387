package test

import (
	"io"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// execScript is a program of nobody's in the client that runs its arguments by
// exec.
const execScript = nobodyDir + "/exec"

// atTerminal runs a line of bash at a terminal, beside execScript.
func (tun *tunnel) atTerminal(line string) (p *netlab.Process, keys io.WriteCloser) {
	tun.t.Helper()
	err := tun.Client.WriteFile(execScript, []byte("#!/bin/sh\nexec "+strings.Join(tun.execWords(), " ")+` "$@"`+"\n"))
	if err != nil {
		tun.t.Fatal(err)
	}
	tun.run("chmod", "755", execScript)
	return tun.terminal("stty rows 33 cols 77; " + line)
}

// terminal runs a line of bash at a terminal of its own. What is written to
// keys is typed there. The line's end is the process's: bash lets the last
// command take its place, where another shell would wait for it and die of the
// keys that are meant for it.
func (tun *tunnel) terminal(line string) (p *netlab.Process, keys io.WriteCloser) {
	tun.t.Helper()
	r, w := io.Pipe()
	tun.t.Cleanup(func() { w.Close() })
	opts := netlab.CommandOptions{Stdin: r, Env: []string{"SHELL=" + needProgram(tun.t, "bash")}}
	p, err := tun.Client.Start(opts, needProgram(tun.t, "script"), "-qec", line, "/dev/null")
	return tun.started("terminal", p, err), w
}

func (tun *tunnel) press(keys io.Writer, text string) {
	tun.t.Helper()
	if _, err := io.WriteString(keys, text); err != nil {
		tun.t.Fatal(err)
	}
}

// untilGo is a shell's loop that ends when letGo is called.
const untilGo = "while [ ! -e " + nobodyDir + "/go ]; do sleep 0.02; done"

func (tun *tunnel) letGo() {
	tun.t.Helper()
	if err := tun.Client.WriteFile(nobodyDir+"/go", nil); err != nil {
		tun.t.Fatal(err)
	}
}

// The command has the terminal, its size and its keys, each of them once.
//
// leak check 48: at a terminal
func TestExecAtATerminal(t *testing.T) {
	tun := execWorld(t)
	p, keys := tun.atTerminal(execScript + ` sh -c 'tty; stty size; trap "echo interrupted" INT; echo ready; ` + untilGo + `; exit 44'`)
	tun.awaitLine(p, "/dev/pts/")
	tun.awaitLine(p, "33 77")
	tun.awaitLine(p, "ready")
	tun.press(keys, "\x03")
	tun.awaitLine(p, "interrupted")
	tun.letGo()
	keys.Close()
	tun.ends(p, 44)
	if n := strings.Count(p.Output(), "interrupted"); n != 1 {
		t.Errorf("Ctrl-C came %d times", n)
	}
}

func TestExecIsStoppedAndGoesOn(t *testing.T) {
	tun := execWorld(t)
	p, keys := tun.atTerminal(`set -m; ` + execScript + ` sh -c 'echo ready; ` + untilGo + `; exit 45'; echo stopped by $?; fg; exit $?`)
	tun.awaitLine(p, "ready")
	tun.press(keys, "\x1a")
	tun.awaitLine(p, "stopped by 148") // SIGTSTP
	tun.letGo()
	keys.Close()
	tun.ends(p, 45)
}

// Who has taken the terminal in the meantime keeps it.
func TestExecEndsInTheBackground(t *testing.T) {
	tun := execWorld(t)
	// Builtins only: bash takes the terminal back itself when it has run a program.
	p, keys := tun.atTerminal(`set -m; ` + execScript + ` sh -c 'echo ready; ` + untilGo + `'; echo stopped by $?
bg; while [ -e /proc/$! ]; do :; done; read -r stat </proc/$$/stat; set -- ${stat##*) }; [ "$3" = "$6" ] && echo still ours`)
	tun.awaitLine(p, "ready")
	tun.press(keys, "\x1a")
	tun.awaitLine(p, "stopped by 148")
	tun.letGo()
	tun.awaitLine(p, "still ours")
	keys.Close()
	tun.ends(p, 0)
}

// A shell takes the terminal for its jobs. Whoever had it before has it again.
func TestExecGivesTheTerminalBack(t *testing.T) {
	tun := execWorld(t)
	p, keys := tun.atTerminal(execScript + ` bash --norc --noprofile -ic 'sleep 0.01; echo inside'; read -r word; echo "outside: $word"`)
	tun.awaitLine(p, "inside")
	tun.press(keys, "hello\n")
	tun.awaitLine(p, "outside: hello")
	keys.Close()
	tun.ends(p, 0)
}
