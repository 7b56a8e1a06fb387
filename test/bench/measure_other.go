//go:build !linux

package main

import (
	"context"
	"fmt"
	"runtime"
)

func measure(context.Context, string, string) error {
	return fmt.Errorf("not supported on %s yet: it needs Linux network namespaces", runtime.GOOS)
}

func generate(context.Context, string, []string) error {
	return measure(context.Background(), "", "")
}
