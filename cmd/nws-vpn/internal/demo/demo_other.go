//go:build !linux

package demo

import (
	"context"
	"fmt"
	"runtime"
)

// Run is for Linux only, whose network namespaces the demo is made of.
func Run(context.Context, Options) error {
	return fmt.Errorf("demo: not supported on %s yet: it needs Linux network namespaces", runtime.GOOS)
}
