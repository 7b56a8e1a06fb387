package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrRefused is for errors whose text is what the program said.
var ErrRefused = errors.New("refused")

// refusal is what the program said.
type refusal string

func (r refusal) Error() string      { return string(r) }
func (refusal) Is(target error) bool { return target == ErrRefused }

// Status asks the program of stateDir for its status, as the JSON it sent.
func Status(ctx context.Context, stateDir string) ([]byte, error) {
	return Do(ctx, stateDir, http.MethodGet, "/status")
}

// Down asks the program of stateDir to end, and to open the machine even in
// lockdown if unlock is true. It returns once the program has agreed, or
// ErrNotRunning if it died meanwhile.
func Down(ctx context.Context, stateDir string, unlock bool) error {
	path := "/down"
	if unlock {
		path += "?unlock=1"
	}
	_, err := DoWithin(ctx, readPatience, stateDir, http.MethodPost, path) // it only agrees
	if errors.Is(err, errNoAnswer) {
		return ErrNotRunning
	}
	return err
}

// Lock has the program of stateDir switch to lockdown.
func Lock(ctx context.Context, stateDir string) error {
	return doIfAlive(ctx, stateDir, "/lock")
}

// Confirm keeps the tunnel of stateDir, which would be rolled back otherwise.
func Confirm(ctx context.Context, stateDir string) error {
	return doIfAlive(ctx, stateDir, "/confirm")
}

// doIfAlive has the program do something, which may take a while, but finds out
// soon when it is stopped.
func doIfAlive(ctx context.Context, stateDir, path string) error {
	if _, err := Status(ctx, stateDir); err != nil {
		return err
	}
	_, err := Do(ctx, stateDir, http.MethodPost, path)
	return err
}

// errNoAnswer says that a program died, or closed the connection, before it
// answered anything. The library has many errors for that.
var errNoAnswer = errors.New("the program ended before it answered")

// listening notes whether anything was heard.
type listening struct {
	net.Conn
	heard *atomic.Bool
}

func (l *listening) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(true)
	}
	return n, err
}

// maxAnswer bounds what a client reads from the socket.
const maxAnswer = 16 << 20

const (
	// readPatience is how long a program may take to tell something. Exits measure
	// rates for a second of it.
	readPatience = 6 * time.Second
	// actPatience is how long it may take to do something.
	actPatience = 30 * time.Second
)

// Do sends a request to the program of stateDir and returns its answer. The
// path may have a query. A program that does not answer in time, or before ctx
// ends, gives an error that is ErrSilent.
func Do(ctx context.Context, stateDir, method, path string) ([]byte, error) {
	patience := actPatience
	if method == http.MethodGet {
		patience = readPatience
	}
	return DoWithin(ctx, patience, stateDir, method, path)
}

// DoWithin is Do for what takes another time.
func DoWithin(ctx context.Context, patience time.Duration, stateDir, method, path string) ([]byte, error) {
	return do(ctx, patience, stateDir, method, path, nil)
}

// Post has the program of stateDir take body, as Do does.
func Post(ctx context.Context, stateDir, path string, body []byte) error {
	_, err := do(ctx, actPatience, stateDir, http.MethodPost, path, body)
	return err
}

// ErrSilent is for errors of programs that run and do not answer.
var ErrSilent = errors.New("no answer")

// silence is that of a program with the socket in dir; its process id is 0 when it
// is not known.
type silence struct {
	dir string
	pid int
}

func (s *silence) Is(target error) bool { return target == ErrSilent }

func (s *silence) Error() string {
	if s.pid == 0 {
		return fmt.Sprintf("the program whose control socket is in %s does not answer: if it is stopped, have it go on, else end it and start it again", s.dir)
	}
	return fmt.Sprintf("process %d, whose control socket is in %s, does not answer: if it is stopped, `kill -CONT %d` has it go on, else end it and start it again", s.pid, s.dir, s.pid)
}

func do(ctx context.Context, patience time.Duration, stateDir, method, path string, content []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var pid atomic.Int64
	body, err := send(ctx, &pid, stateDir, method, path, content)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, ErrNotRunning) {
		return nil, &silence{stateDir, int(pid.Load())}
	}
	return body, err
}

// send sends a request and returns the answer, and notes which process is asked.
func send(ctx context.Context, pid *atomic.Int64, stateDir, method, path string, content []byte) ([]byte, error) {
	resp, err := open(ctx, pid, stateDir, method, path, content)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("control socket in %s: %w", stateDir, err)
	}
	return body, nil
}

// open sends a request and returns the answer, once it has begun, if it is a good
// one.
func open(ctx context.Context, pid *atomic.Int64, stateDir, method, path string, content []byte) (*http.Response, error) {
	heard := new(atomic.Bool)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", filepath.Join(stateDir, SocketName))
			if err != nil {
				return nil, err
			}
			pid.Store(int64(peerPID(conn)))
			return &listening{conn, heard}, nil
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://nws-vpn"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("control socket in %s: permission denied: run this as the user whose program it is (usually root)", stateDir)
	case err != nil && ctx.Err() == nil && !heard.Load():
		return nil, fmt.Errorf("control socket in %s: %w (%w)", stateDir, errNoAnswer, err)
	case err != nil:
		return nil, fmt.Errorf("control socket in %s: %w", stateDir, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusConflict {
		return nil, fmt.Errorf("control socket in %s: answered %s", stateDir, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("control socket in %s: %w", stateDir, err)
	}
	return nil, refusal(strings.TrimSpace(string(body)))
}
