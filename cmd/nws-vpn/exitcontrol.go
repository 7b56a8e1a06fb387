package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/exit"
)

// routes are what the exit's control socket answers.
func (r *exitRun) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, q *http.Request) {
		clients, _ := strconv.Atoi(q.FormValue("clients"))
		control.AnswerJSON(w, r.statusOver(q.Context(), clients, rateTime))
	})
	mux.HandleFunc("GET /alive", func(w http.ResponseWriter, q *http.Request) {
		control.Answer(w, r.isNamed(q.FormValue("npub")))
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) {
		report, err := r.reload()
		if err != nil {
			control.Answer(w, err)
			return
		}
		control.AnswerJSON(w, report)
	})
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, q *http.Request) {
		change, err := r.restart(q.Context())
		if err != nil {
			control.Answer(w, err)
			return
		}
		io.WriteString(w, change)
	})
	mux.HandleFunc("POST /save", func(w http.ResponseWriter, q *http.Request) {
		var err error
		if next := readSuccessor(q.URL.Query()); next != nil {
			err = r.mayTakeOver(next)
		}
		if err == nil {
			err = r.server.SaveUsage()
		}
		if err != nil {
			control.Answer(w, err)
			return
		}
		control.AnswerJSON(w, predecessor{&r.started.Exit.Metrics})
	})
	mux.HandleFunc("POST /usage", func(w http.ResponseWriter, q *http.Request) {
		usage, err := io.ReadAll(http.MaxBytesReader(w, q.Body, exit.MaxUsage))
		if err == nil {
			err = r.server.AddUsage(usage)
		}
		control.Answer(w, err)
	})
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, q *http.Request) {
		var timeout time.Duration
		if text := q.FormValue("timeout"); text != "" {
			var err error
			if timeout, err = time.ParseDuration(text); err != nil || timeout < 0 {
				control.Answer(w, errors.New("want a timeout such as 10m"))
				return
			}
		}
		control.Answer(w, r.drain(timeout, readSuccessor(q.URL.Query())))
	})
	return mux
}

// isNamed makes sure that npub, if there is one, is a name of the exit.
func (r *exitRun) isNamed(npub string) error {
	if npub == "" || slices.Contains(r.npubs(), npub) {
		return nil
	}
	return fmt.Errorf("the exit that runs here is %s, not %s", r.npubs()[0], npub)
}

// npubs are those of the exit's names, its own first.
func (r *exitRun) npubs() []string {
	list := make([]string, 0, len(r.names))
	for _, n := range r.names {
		list = append(list, n.key.Public().NPub())
	}
	return list
}

// exitSocket finds the control socket of a running exit, by the flags of the
// commands that use it.
type exitSocket struct {
	config   configFlags
	keyPath  string
	stateDir string

	notes func() io.Writer
	told  bool // that the configuration cannot be read
	quiet bool // the exit says so itself
}

func (s *exitSocket) add(cmd *cobra.Command) {
	s.notes = cmd.ErrOrStderr
	cmd.Flags().StringVar(&s.config.file, "config", "", "configuration file of the exit")
	cmd.Flags().StringVar(&s.keyPath, "key", "", "the exit's key file, to find its state directory by")
	cmd.Flags().StringVar(&s.stateDir, "state-dir", "", "the exit's state directory")
}

// askPatience is how long an exit that is alive may take for what it does at once.
const askPatience = 30 * time.Second

// ask sends a request to the running exit, which has a time of patience to answer.
func (s *exitSocket) ask(ctx context.Context, patience time.Duration, method, path string) ([]byte, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	if err := s.isMeant(ctx, dir); err != nil {
		return nil, err
	}
	// One that is stopped is found out soon, also when what is asked takes long.
	answer, err := control.Do(ctx, dir, http.MethodGet, "/alive")
	if err == nil {
		answer, err = control.DoWithin(ctx, patience, dir, method, path)
	}
	if errors.Is(err, control.ErrNotRunning) {
		return nil, fmt.Errorf("no exit runs with the state directory %s: name another one with --state-dir, or its key file with --key", dir)
	}
	return answer, err
}

func exitReloadCommand() *cobra.Command {
	socket := exitSocket{quiet: true}
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the running exit read its configuration file again",
		Long: `Has the running exit read its configuration file again, as SIGHUP does. Policy,
limits and services change; flows stay. The answer says what has changed, and which
keys wait for the next start. A configuration that is wrong is refused as a whole,
and everything stays as it was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := socket.ask(cmd.Context(), askPatience, http.MethodPost, "/reload")
			if err != nil {
				return err
			}
			var report reloadReport
			if err := json.Unmarshal(answer, &report); err != nil {
				return fmt.Errorf("reloaded, but the answer is not understood: %w: is the exit of another version?", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), oneLine(report.String()))
			return err
		},
	}
	socket.add(cmd)
	return cmd
}

func exitDrainCommand() *cobra.Command {
	var (
		socket  exitSocket
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "End the running exit when its flows have ended",
		Long: `Has the running exit take no new sessions and end when its flows have ended, and
waits for that. To replace it without a gap, start the new process first, with
"nws-vpn exit --takeover", which does this by itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/drain"
			if timeout > 0 {
				path += "?" + url.Values{"timeout": {timeout.String()}}.Encode()
			}
			if _, err := socket.ask(cmd.Context(), askPatience, http.MethodPost, path); err != nil {
				return err
			}
			if err := socket.waitUntilGone(cmd.Context()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "drained")
			return err
		},
	}
	socket.add(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "cut the flows that are left after so long, such as 10m (default: wait for them)")
	return cmd
}

// waitUntilGone returns when the exit has ended.
func (s *exitSocket) waitUntilGone(ctx context.Context) error {
	dir, err := s.dir()
	if err != nil {
		return err
	}
	for {
		if _, err := control.Do(ctx, dir, http.MethodGet, "/alive"); errors.Is(err, control.ErrNotRunning) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(drainCheck):
		}
	}
}
