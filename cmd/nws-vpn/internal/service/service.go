// Package service is this process as a service of systemd, or of what speaks as
// that does: what the manager has given it, and what it wants to hear.
package service

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// StateDir is the directory that the manager has made for this service to write to
// (StateDirectory=, the first if there are more), or "".
func StateDir(getenv func(string) string) string {
	if dirs := filepath.SplitList(getenv("STATE_DIRECTORY")); len(dirs) > 0 && filepath.IsAbs(dirs[0]) {
		return dirs[0]
	}
	return ""
}

// Manager is who started this service and wants to hear of it (sd_notify(3)). A
// nil one is not there, and told nothing. It may be used by several goroutines.
type Manager struct {
	address  *net.UnixAddr
	watchdog time.Duration // within which it wants to hear of us; 0 for never
}

// Current is the manager of this process, or nil.
func Current() *Manager { return Find(os.Getenv, os.Getpid()) }

// Find reads what the manager of process pid says of itself in the environment,
// nil if there is none.
func Find(getenv func(string) string, pid int) *Manager {
	path := getenv("NOTIFY_SOCKET")
	if path == "" || path[0] != '/' && path[0] != '@' {
		return nil
	}
	m := &Manager{address: &net.UnixAddr{Name: path, Net: "unixgram"}}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	of := getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (of == "" || of == strconv.Itoa(pid)) {
		m.watchdog = time.Duration(usec) * time.Microsecond
	}
	return m
}

// Notify sends one line, such as READY=1. It waits for a second at most, and what
// gets lost is no problem of ours.
func (m *Manager) Notify(line string) {
	if m == nil {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, m.address)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte(strings.TrimSpace(line)))
}

// Heartbeat ticks as often as the watchdog wants to hear WATCHDOG=1, never if
// there is none. The caller stops it.
func (m *Manager) Heartbeat() *time.Ticker {
	if m == nil || m.watchdog == 0 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTicker(max(m.watchdog/3, time.Millisecond))
}
