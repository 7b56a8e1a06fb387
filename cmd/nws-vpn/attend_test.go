package main

import (
	"context"
	"testing"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

// Nothing is let out of a machine that is closed without a tunnel.
func TestAttendTunnel(t *testing.T) {
	closed := stateDirs{dir: t.TempDir()}
	if err := closed.remember(record{KillSwitch: lifecycle.Lockdown}); err != nil {
		t.Fatal(err)
	}
	open := stateDirs{dir: t.TempDir()}

	cuts := 0
	attendTunnel(t.Context(), closed, func() { cuts++ })
	if cuts != 1 {
		t.Errorf("with no tunnel on a closed machine: cut %d times", cuts)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	attendTunnel(gone, open, func() { t.Error("cut on an open machine") })
}
