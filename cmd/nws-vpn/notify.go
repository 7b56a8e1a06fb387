package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// serviceManager is systemd, or what speaks as it does (sd_notify). A nil one
// is not there.
type serviceManager struct {
	address  *net.UnixAddr
	watchdog time.Duration // within which it wants to hear of us; 0 for never
}

// findServiceManager reads what the service manager says of itself, nil if there
// is none.
func findServiceManager(getenv func(string) string, pid int) *serviceManager {
	path := getenv("NOTIFY_SOCKET")
	if path == "" || path[0] != '/' && path[0] != '@' {
		return nil
	}
	m := &serviceManager{address: &net.UnixAddr{Name: path, Net: "unixgram"}}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	of := getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (of == "" || of == strconv.Itoa(pid)) {
		m.watchdog = time.Duration(usec) * time.Microsecond
	}
	return m
}

// notify sends one line. It waits for nobody, and what gets lost is no problem
// of ours.
func (m *serviceManager) notify(line string) {
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

// heartbeat ticks as often as the watchdog wants to hear of us.
func (m *serviceManager) heartbeat() *time.Ticker {
	if m == nil || m.watchdog == 0 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTicker(max(m.watchdog/3, time.Millisecond))
}

// underServiceManager is the one of this process.
func underServiceManager() *serviceManager { return findServiceManager(os.Getenv, os.Getpid()) }
