//go:build !linux

package tunbench

import (
	"context"
	"errors"
)

// Run fails: the measurements need Linux.
func Run(context.Context, func(name string, value float64, unit string)) error {
	return errors.New("tunbench: not supported on this system yet")
}
