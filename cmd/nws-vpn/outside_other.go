//go:build !linux

package main

import (
	"context"
	"errors"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
)

var errNoNamespaces = errors.New("one command outside the tunnel needs the namespaces of Linux")

func runOutside(context.Context, *config.Config, stateDirs, []string) error { return errNoNamespaces }

func runOutsideInside(int, int, []string) error { return errNoNamespaces }
