//go:build !linux

package main

import (
	"context"
	"errors"
)

var errNoExec = errors.New("exec needs the namespaces of Linux")

func runExec(context.Context, execOptions) error { return failed(statusFailed, errNoExec) }

func runExecInside(int, string, []string) error { return errNoExec }
