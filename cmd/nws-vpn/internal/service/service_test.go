package service

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestManager(t *testing.T) {
	env := map[string]string{}
	getenv := func(key string) string { return env[key] }
	if m := Find(getenv, 7); m != nil {
		t.Fatalf("found %v where there is none", m)
	}
	var none *Manager
	none.Notify("READY=1") // does nothing
	none.Heartbeat().Stop()

	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	env["NOTIFY_SOCKET"] = path
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", "7", 30 * time.Second},
		{"30000000", "8", 0}, // another process of the unit
		{"-1", "7", 0},
		{"soon", "7", 0},
	} {
		env["WATCHDOG_USEC"], env["WATCHDOG_PID"] = c.usec, c.pid
		m := Find(getenv, 7)
		if m == nil || m.watchdog != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %+v, want %v", c.usec, c.pid, m, c.want)
		}
	}
	Find(getenv, 7).Notify("READY=1")
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("the manager hears %q, %v", buf[:n], err)
	}
	env["WATCHDOG_USEC"], env["WATCHDOG_PID"] = "3000", "7"
	beat := Find(getenv, 7).Heartbeat()
	defer beat.Stop()
	<-beat.C

	for _, bad := range []string{"relative", "vsock:2:1"} {
		env["NOTIFY_SOCKET"] = bad
		if m := Find(getenv, 7); m != nil {
			t.Errorf("NOTIFY_SOCKET=%s: found %v", bad, m)
		}
	}
	conn.Close()
	Find(func(string) string { return path }, 7).Notify("STOPPING=1") // nobody is there
}

func TestStateDir(t *testing.T) {
	for set, want := range map[string]string{
		"":                              "",
		"/var/lib/nws-vpn-exit":         "/var/lib/nws-vpn-exit",
		"/var/lib/first:/var/lib/other": "/var/lib/first",
		"relative":                      "",
	} {
		got := StateDir(func(key string) string { return map[string]string{"STATE_DIRECTORY": set}[key] })
		if got != want {
			t.Errorf("STATE_DIRECTORY=%s: %q, want %q", set, got, want)
		}
	}
}
