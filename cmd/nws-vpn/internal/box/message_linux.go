package box

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxMessage bounds a message between this process and init, in bytes.
const maxMessage = 32 << 10

// order is what init is told. The first has Setup, the second Start; all others
// have a Signal for the command.
type order struct {
	Setup  *setup
	Start  bool
	Signal int
}

// setup is the part of Config that comes before the command.
type setup struct {
	Device      string
	MTU         int
	Addresses   []netip.Prefix
	Nameservers []netip.Addr
}

// report is what init says: Ready, with the TUN's file; or what Failed, which is
// its end; or that the command has Ended, and whether processes are Left.
type report struct {
	Ready  bool
	Notes  []string
	Failed *failure
	Ended  bool
	Code   int
	Left   bool
}

// failure is an error that passes between processes.
type failure struct {
	Step  step
	Text  string
	Errno syscall.Errno
}

// step is where making a box can fail.
type step string

const (
	stepNamespaces step = "make namespaces"
	stepFiles      step = "hide files"
	stepProc       step = "mount /proc"
	stepDevice     step = "open the TUN"
	stepNetwork    step = "set up the network"
	stepCommand    step = "start the command"
)

func newFailure(s step, err error) *failure {
	f := &failure{Step: s, Text: err.Error()}
	errors.As(err, &f.Errno)
	return f
}

func (f *failure) Error() string { return f.Text }
func (f *failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// pipe is one end of the socket between this process and init. One goroutine
// may receive while another sends.
type pipe struct{ conn *net.UnixConn }

// newPipe makes both ends: this process's, and the file of the other, which a
// started program inherits.
func newPipe() (*pipe, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	far := os.NewFile(uintptr(fds[1]), "box")
	near, err := openPipe(os.NewFile(uintptr(fds[0]), "box"))
	if err != nil {
		far.Close()
		return nil, nil, err
	}
	return near, far, nil
}

// openPipe takes the file over.
func openPipe(f *os.File) (*pipe, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a UNIX socket")
	}
	return &pipe{conn: u}, nil
}

// send sends a message, with a file unless that is nil.
func (p *pipe) send(v any, file *os.File) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(text))
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	_, _, err = p.conn.WriteMsgUnix(text, rights, nil)
	return err
}

// receive waits for a message, and returns the file that came with it, or nil.
// The end of the other process is io.EOF.
func (p *pipe) receive(v any) (*os.File, error) {
	buf, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := p.conn.ReadMsgUnix(buf, rights)
	if errors.Is(err, unix.ECONNRESET) {
		// It has ended with unread messages of ours. Linux says so once, before it
		// hands out what was sent to us until then.
		n, m, _, _, err = p.conn.ReadMsgUnix(buf, rights)
	}
	switch {
	case err == nil && n == 0:
		return nil, io.EOF
	case err != nil:
		return nil, err
	}
	file, err := parseRights(rights[:m])
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(buf[:n], v); err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	return file, nil
}

func parseRights(rights []byte) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "TUN"), nil
}

func (p *pipe) close() { p.conn.Close() }
