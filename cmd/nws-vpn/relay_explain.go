package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
)

// explainListen adds to the error of listening for clients what to do about it.
func explainListen(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: a port below 1024 takes the capability CAP_NET_BIND_SERVICE, which the unit nws-vpn-relay.service has: run it as that, or listen on a higher port", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: something listens there already, maybe another relay: stop that, or listen elsewhere", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: listen on an address that this machine has, or on 0.0.0.0 or [::] for all of them", err)
	}
	return err
}

// explainDatabase does that for the file of events.
func explainDatabase(err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EROFS) {
		return err
	}
	if dir := service.StateDir(os.Getenv); dir != "" {
		return fmt.Errorf("%w: this service writes to %s and nowhere else: set database in section [relay] to a file in there", err, dir)
	}
	return fmt.Errorf("%w: name a file in a directory that is there and that this user may write to", err)
}
