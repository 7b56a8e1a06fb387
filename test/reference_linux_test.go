package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat/reftest"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// The scripted reference implementation of NWS runs as processes of its own,
// which are this program again with referenceAs in the environment: "entry",
// the relay, the exit's key, the address of its SOCKS5 server and, for CONNECTR,
// its public address, or "exit", the relay and the address of its service.
const referenceAs = "NWS_TEST_REFERENCE"

// serveAsReference is what such a process does until it is killed.
func serveAsReference(as string) error {
	role, rest, _ := strings.Cut(as, " ")
	args := strings.Fields(rest)
	ws, err := reftest.Dial(args[0], relay.Options{})
	if err != nil {
		return err
	}
	defer ws.Close()
	ctx := context.Background()
	switch {
	case role == "entry" && len(args) >= 3:
		exit, err := envelope.ParsePublicKey(args[1])
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", args[2])
		if err != nil {
			return err
		}
		entry := &reftest.Entry{Exit: exit, Relay: ws}
		if len(args) > 3 {
			entry.PublicAddress = args[3]
			if entry.Listener, err = net.Listen("tcp", args[3]); err != nil {
				return err
			}
			go entry.Serve(ctx)
		}
		fmt.Println("reference listening")
		return entry.ServeSOCKS(ctx, l)
	case role == "exit" && len(args) == 2:
		key, err := envelope.GenerateSecretKey()
		if err != nil {
			return err
		}
		ready := make(chan struct{})
		go func() {
			<-ready
			fmt.Println("reference listening", key.Public().NPub())
		}()
		return (&reftest.Exit{Key: key, Relay: ws, URL: args[0], Backend: args[1]}).Serve(ctx, ready)
	}
	return errors.New("test: no such part of the reference: " + as)
}

// startReference starts a part of the reference in a host and returns what it
// says once it is ready.
func (tun *tunnel) startReference(h *netlab.Host, as ...string) string {
	tun.t.Helper()
	path, err := os.Executable()
	if err != nil {
		tun.t.Fatal(err)
	}
	p, err := h.Start(netlab.CommandOptions{Env: []string{referenceAs + "=" + strings.Join(as, " ")}}, path)
	if err != nil {
		tun.t.Fatal(err)
	}
	line, err := p.WaitLine(tun.ctx, func(line string) bool { return strings.HasPrefix(line, "reference listening") })
	if err != nil {
		tun.t.Fatalf("%v: %s", err, p.Output())
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "reference listening"))
}
