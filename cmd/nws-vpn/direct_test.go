package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
)

// TestDialPublic: an exit cannot make the entry connect to its own network, nor
// look anything up.
func TestDialPublic(t *testing.T) {
	reached := errors.New("reached")
	dial := dialPublic(func(string, string, syscall.RawConn) error { return reached })
	for address, public := range map[string]bool{
		"9.9.9.9:443": true, "[2620:fe::fe]:443": true,
		"127.0.0.1:443": false, "192.168.1.1:80": false, "[::1]:443": false, "[::ffff:10.0.0.1]:443": false,
		"[fe80::1%eth0]:443": false, "localhost:443": false, "router.example:443": false, "9.9.9.9": false,
	} {
		_, err := dial(context.Background(), "tcp", address)
		if errors.Is(err, reached) != public {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestExitPaths(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no") }
	for word, dials := range map[string]bool{config.ConnectROff: false, config.ConnectRTLS: true, config.ConnectRClear: true} {
		paths, stop, err := exitPaths(t.Context(), &config.Exit{ConnectR: word}, dial)
		if err != nil || (paths.Dialer != nil) != dials || paths.Listener != nil {
			t.Errorf("%s: %+v, %v", word, paths, err)
		}
		stop()
	}
	busy, err := net.Listen("tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, port, _ := net.SplitHostPort(busy.Addr().String())
	address := "198.51.100.7:" + port
	if _, _, err := exitPaths(t.Context(), &config.Exit{PublicAddress: address}, dial); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("a port in use: %v", err)
	}
	busy.Close()
	paths, stop, err := exitPaths(t.Context(), &config.Exit{PublicAddress: address}, dial)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if got := paths.Listener.Addresses(); len(got) != 1 || got[0] != address {
		t.Errorf("offered as %q", got)
	}
}
