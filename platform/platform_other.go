//go:build !linux

package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"syscall"
)

func errNotSupported() error {
	return fmt.Errorf("platform: not supported on %s yet: %w", runtime.GOOS, errors.ErrUnsupported)
}

// New fails: this operating system is not supported yet.
func New(stateDir string, o Options) (Configurator, error) { return nil, errNotSupported() }

// CleanUp fails: this operating system is not supported yet.
func CleanUp(stateDir string, log *slog.Logger) error { return errNotSupported() }

// Unlock fails: this operating system is not supported yet.
func Unlock(stateDir string, log *slog.Logger) error { return errNotSupported() }

// Preview fails: this operating system is not supported yet.
func Preview(cfg Config) (changes, notes []string, err error) { return nil, nil, errNotSupported() }

// Networks fails: this operating system is not supported yet.
func Networks(device string) ([]netip.Prefix, error) { return nil, errNotSupported() }

// Control fails every socket: this operating system is not supported yet, and a
// socket that does not bypass the tunnel would carry the tunnel into itself.
func Control(mark uint32) func(network, address string, c syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error { return errNotSupported() }
}

// Watch fails: this operating system is not supported yet.
func Watch(ctx context.Context, onChange func()) error { return errNotSupported() }
