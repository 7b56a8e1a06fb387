// Package control is how `nws-vpn status`, `nws-vpn down` and others talk to a running
// `nws-vpn up`, and `nws-vpn exit status` and others to an exit: HTTP over a UNIX socket in the state directory. The directory
// is 0700 and the socket 0600, so the file system decides who may ask.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotRunning is returned by the client functions when nothing listens on
// the socket.
var ErrNotRunning = errors.New("nws-vpn is not running")

// SocketName is the socket's in the state directory.
const SocketName = "control.sock"

// Handler is what the running program answers with. Its methods are called
// from many goroutines.
type Handler interface {
	Status() any // encoded as JSON
	// Down asks the program to end, and to open the machine even in lockdown if
	// unlock is true. It does not wait for that.
	Down(unlock bool)
	Lock() error    // switches to lockdown
	Confirm() error // keeps a tunnel that would be rolled back
	// Leaves is what stays behind, one of the constants. It is asked when the
	// server closes.
	Leaves() string
}

// Server listens on the socket of one state directory.
type Server struct {
	listener *removing
	http     *http.Server
	done     chan struct{}
}

// Listen serves h on the socket of a state directory; see Serve.
func Listen(stateDir string, h Handler) (*Server, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { AnswerJSON(w, h.Status()) })
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		h.Down(r.FormValue("unlock") != "")
	})
	mux.HandleFunc("POST /lock", func(w http.ResponseWriter, _ *http.Request) { Answer(w, h.Lock()) })
	mux.HandleFunc("POST /confirm", func(w http.ResponseWriter, _ *http.Request) { Answer(w, h.Confirm()) })
	ending := make(chan struct{})
	mux.HandleFunc("GET /attend", attended(ending, h.Leaves))
	s, err := Serve(stateDir, mux)
	if err == nil {
		s.http.RegisterOnShutdown(sync.OnceFunc(func() { close(ending) }))
	}
	return s, err
}

// Serve makes the state directory if needed and serves h on its socket. A socket
// left by a program that died is replaced; the caller must know that there is no
// other program, or that it has let go of the socket.
func Serve(stateDir string, h http.Handler) (*Server, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	path := filepath.Join(stateDir, SocketName)
	l, err := listenPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Server{
		listener: l,
		http: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: 5 * time.Second,
			IdleTimeout:       5 * time.Second,
			MaxHeaderBytes:    8 << 10,
		},
		done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		s.http.Serve(l)
	}()
	return s, nil
}

// LetGo leaves the socket's name to another program, which may replace it from
// now on: Close does not remove it any more.
func (s *Server) LetGo() { s.listener.letGo.Store(true) }

// AnswerJSON answers with what v is as JSON.
func AnswerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// Answer says how something that was asked for went. An error's text is for the
// user.
func Answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// listenPrivate binds path under a temporary name, so that it never exists
// with wider permissions than it ends with.
func listenPrivate(path string) (*removing, error) {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, err
	}
	return &removing{UnixListener: l, path: path}, nil
}

// removing is a listener that takes its socket away when it closes, unless it has
// let go of it.
type removing struct {
	*net.UnixListener
	path  string
	letGo atomic.Bool
}

func (r *removing) Close() error {
	if !r.letGo.Load() {
		os.Remove(r.path)
	}
	return r.UnixListener.Close()
}

// Close ends the server, lets answers under way finish for up to a second,
// removes the socket and waits.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.done
	return err
}
