package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
)

// How an exit has ended is logged, in one line, unless that was by an error, which
// is told anyway.
func TestEndOfAnExitIsLogged(t *testing.T) {
	server, err := exit.New(exit.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	signalled, cancel := context.WithCancelCause(t.Context())
	cancel(signalError("terminated signal received"))
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, test := range []struct {
		what                   string
		ctx                    context.Context
		failure                error
		isDraining, isReplaced bool
		want                   string
	}{
		{what: "a signal", ctx: signalled, want: `msg=stopped why="terminated signal received"`},
		{what: "an end", ctx: gone, want: `msg=stopped why="asked to end"`},
		{what: "a drain", ctx: t.Context(), isDraining: true, want: "msg=stopped why=drained"},
		{what: "a successor", ctx: t.Context(), isDraining: true, isReplaced: true, want: `msg=stopped why="another process has taken over"`},
		{what: "an error", ctx: t.Context(), failure: errors.New("no relay")},
	} {
		var log bytes.Buffer
		r := &exitRun{server: server, replaced: make(chan struct{}), log: slog.New(slog.NewTextHandler(&log, nil))}
		failed := make(chan error, 1)
		if test.failure != nil {
			failed <- test.failure
		}
		if test.isDraining {
			r.draining.since = time.Now().Add(-time.Hour)
		}
		if test.isReplaced {
			close(r.replaced)
		}
		why, err := r.wait(test.ctx, failed)
		r.ended = why
		r.sayStopped(err)
		if !errors.Is(err, test.failure) || strings.Contains(log.String(), "stopped") != (test.want != "") || !strings.Contains(log.String(), test.want) {
			t.Errorf("%s: %v, logged %q, want %q", test.what, err, log.String(), test.want)
		}
	}
}

// What is logged about a name says which.
func TestLogOfANameNamesIt(t *testing.T) {
	e := newTestExit(t, "")
	e.newKey("blog.key")
	var log bytes.Buffer
	r := &exitRun{cfg: config.Default(), log: slog.New(slog.NewTextHandler(&log, nil))}
	for label, want := range map[string]string{"blog": "msg=listening name=blog\n", "": "msg=listening\n"} {
		n, err := r.openName(label, config.ExitName{KeyFile: filepath.Join(e.dir, "blog.key")})
		if err != nil {
			t.Fatal(err)
		}
		log.Reset()
		n.log.Info("listening")
		if !strings.HasSuffix(log.String(), want) {
			t.Errorf("the name %q: %q, want %q", label, log.String(), want)
		}
	}
}

// signalError is as the cause that signal.NotifyContext gives.
type signalError string

func (s signalError) Error() string        { return string(s) }
func (s signalError) Is(target error) bool { return target == context.Canceled }
