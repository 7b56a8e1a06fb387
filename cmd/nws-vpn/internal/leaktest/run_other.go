//go:build !linux

package leaktest

import (
	"context"
	"errors"
	"time"

	"github.com/nws-vpn/nws-vpn/platform"
)

// Run can tell nothing: this operating system is not supported yet.
func Run(_ context.Context, s Settings, in *platform.Inspection) *Observation {
	return &Observation{Settings: s, Time: time.Now(), Net: in, Watch: Watch{Problem: errors.ErrUnsupported.Error()}}
}
