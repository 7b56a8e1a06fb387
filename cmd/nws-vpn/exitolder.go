package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
)

// exitOlderDir has a directory with a control socket, named by the process id, for each
// process that has been replaced and still has flows.
const exitOlderDir = "older"

const (
	// maxOlder bounds how many of them are asked.
	maxOlder = 16
	// olderPatience is how long one may take to answer.
	olderPatience = time.Second
)

// exitOlder is a process that has been replaced, and ends when its flows have.
type exitOlder struct {
	PID int `json:"pid"`
	// What follows is missing when it does not answer.
	Version string     `json:"version,omitempty"`
	Since   *time.Time `json:"since,omitempty"` // when it was replaced
	Flows   *int       `json:"flows,omitempty"` // open
}

// showReplaced lets this process, which was replaced, be asked under a name of its own.
// Nothing depends on that.
func (r *exitRun) showReplaced() {
	since := time.Now().UTC()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		flows := r.server.Stats().OpenFlows
		control.AnswerJSON(w, exitOlder{os.Getpid(), buildVersion(), &since, &flows})
	})
	all := filepath.Join(r.state, exitOlderDir)
	own := filepath.Join(all, strconv.Itoa(os.Getpid()))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	socket, err := control.Serve(own, mux)
	if err != nil {
		r.log.Warn("`nws-vpn exit status` does not show what this process still does", "err", err)
		return
	}
	r.closeReplaced = func() {
		socket.Close()
		_ = os.Remove(own)
		_ = os.Remove(all) // unless there are others
	}
}

// olderProcesses asks those that this one has come after, oldest first.
func olderProcesses(ctx context.Context, state string) []exitOlder {
	ctx, cancel := context.WithTimeout(ctx, olderPatience)
	defer cancel()
	var (
		asking sync.WaitGroup
		mu     sync.Mutex
		list   []exitOlder
	)
	entries, _ := os.ReadDir(filepath.Join(state, exitOlderDir)) // mostly there is none
	for _, entry := range entries[:min(len(entries), maxOlder)] {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		asking.Go(func() {
			older := exitOlder{PID: pid}
			dir := filepath.Join(state, exitOlderDir, entry.Name())
			b, err := control.Status(ctx, dir)
			if errors.Is(err, control.ErrNotRunning) { // it was killed
				_ = os.Remove(filepath.Join(dir, control.SocketName))
				_ = os.Remove(dir)
				return
			}
			if err == nil && json.Unmarshal(b, &older) != nil {
				older = exitOlder{PID: pid}
			}
			mu.Lock()
			defer mu.Unlock()
			list = append(list, older)
		})
	}
	asking.Wait()
	slices.SortFunc(list, func(a, b exitOlder) int {
		if a.Since != nil && b.Since != nil {
			return a.Since.Compare(*b.Since)
		}
		return cmp.Compare(a.PID, b.PID)
	})
	return list
}
