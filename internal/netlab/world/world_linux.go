package world

import (
	"errors"
	"fmt"
	"io"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// Addresses and names of the world.
const (
	ClientIP, ClientIP6 = "10.77.1.2", "fd77:1::2"
	RouterIP            = "10.77.1.1" // as the client sees it; the uplink's resolver too
	RelayIP, RelayIP6   = "10.77.2.2", "fd77:2::2"
	RelayPort           = "7777"
	RelayURL            = "ws://" + RelayIP + ":" + RelayPort
	RelayName           = "relay.isp.example" // only the uplink's resolver knows it
	ExitIP              = "10.77.3.2"
	WebIP, WebIP6       = "203.0.113.80", "2001:db8:80::80"
	DNSIP, DNSIP6       = "203.0.113.53", "2001:db8:80::53"
	WebName             = "www.beyond.example" // only the exit's resolver knows it
	UnroutedIP          = "198.51.100.1"       // the router answers: network unreachable
	WebText             = "a text that only this resolver has"
	UplinkResolvConf    = "# given by the client's network\nnameserver " + RouterIP + "\n"
)

// Ports on WebIP and WebIP6; nothing listens on PortRefused.
const (
	PortWeb     = "80"
	PortRefused = "81"
	PortEcho    = "7"    // TCP: sends back what came, and its end; UDP: the datagram
	PortDigest  = "4000" // TCP: reads to the end, then answers length and SHA-256
	PortBanner  = "2121" // TCP: speaks first, then sends back the first line
	PortReset   = "2323" // TCP: resets the connection after the first byte
	PortDNS     = "53"
	PortDNS2    = "5353" // on DNSIP: the same resolver where nothing intercepts it
)

// The web service of the exit itself, which has no address that others reach:
// where it listens in the exit, and who it says it is.
const (
	ServiceAddress = "127.0.0.1:8080"
	ServiceText    = "the exit's own service"
)

// Banner is what PortBanner says.
const Banner = "220 hello, I speak first"

// World is the running lab. Close it.
type World struct {
	Client, Router, Relay, Exit, Internet *netlab.Host

	// Uplink and Beyond are the resolvers of the client's network and of the
	// internet; they count what they are asked.
	Uplink, Beyond *DNSServer

	lab     *netlab.Lab
	binary  string
	closers []io.Closer
}

// New builds the world. binary is the path of nws-vpn.
func New(binary string) (*World, error) {
	w := &World{lab: netlab.New(), binary: binary}
	for _, step := range []func() error{w.makeHosts, w.connect, w.route, w.readyNobody, w.serve} {
		if err := step(); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

func (w *World) makeHosts() error {
	for _, h := range []struct {
		host **netlab.Host
		name string
	}{{&w.Client, "client"}, {&w.Router, "relay-net"}, {&w.Relay, "relay"}, {&w.Exit, "exit"}, {&w.Internet, "internet"}} {
		var err error
		if *h.host, err = w.lab.Host(h.name); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) connect() error {
	port := netlab.Port
	for _, l := range [][2]netlab.End{
		{port(w.Client, "eth0", ClientIP+"/24", ClientIP6+"/64"), port(w.Router, "client", RouterIP+"/24", "fd77:1::1/64")},
		{port(w.Relay, "eth0", RelayIP+"/24", RelayIP6+"/64"), port(w.Router, "relay", "10.77.2.1/24", "fd77:2::1/64")},
		{port(w.Exit, "eth0", ExitIP+"/24", "fd77:3::2/64"), port(w.Router, "exit", "10.77.3.1/24", "fd77:3::1/64")},
		{port(w.Internet, "eth0", WebIP+"/24", DNSIP+"/24", WebIP6+"/64", DNSIP6+"/64"),
			port(w.Router, "internet", "203.0.113.1/24", "2001:db8:80::1/64")},
	} {
		if err := w.lab.Link(l[0], l[1]); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) route() error {
	if err := w.Router.Forward(); err != nil {
		return err
	}
	for _, r := range []struct {
		host       *netlab.Host
		via4, via6 string
	}{
		{w.Client, RouterIP, "fd77:1::1"},
		{w.Relay, "10.77.2.1", "fd77:2::1"},
		{w.Exit, "10.77.3.1", "fd77:3::1"},
		{w.Internet, "203.0.113.1", "2001:db8:80::1"},
	} {
		if err := errors.Join(r.host.Route("0.0.0.0/0", r.via4), r.host.Route("::/0", r.via6)); err != nil {
			return err
		}
	}
	return errors.Join(
		w.Client.WriteFile("/etc/resolv.conf", []byte(UplinkResolvConf)),
		w.Exit.WriteFile("/etc/resolv.conf", []byte("nameserver "+DNSIP+"\n")),
		// Nobody may ping there, as on most systems.
		w.Exit.Sysctl("net/ipv4/ping_group_range", "0 2147483647"))
}

// Keep closes c when the world is closed, before the hosts go.
func (w *World) Keep(c io.Closer) { w.closers = append(w.closers, c) }

// Close ends all processes and servers and takes the hosts down. It works on a
// world that was built half way.
func (w *World) Close() error {
	var errs []error
	for _, c := range w.closers {
		errs = append(errs, c.Close())
	}
	w.closers = nil
	if err := errors.Join(append(errs, w.lab.Close())...); err != nil {
		return fmt.Errorf("world: close: %w", err)
	}
	return nil
}
