//go:build !linux

package main

import (
	"context"
	"errors"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
)

var errNoPortal = errors.New("portal needs the namespaces of Linux")

func runPortal(context.Context, *config.Config, stateDirs, []string) error { return errNoPortal }

func runPortalInside(int, int, []string) error { return errNoPortal }
