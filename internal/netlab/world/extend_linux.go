package world

import (
	"errors"
	"net"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// Addresses of what a test may add to the world.
const (
	// A second uplink of the client, to the same router.
	Client2IP, Router2IP   = "10.78.1.2", "10.78.1.1"
	Client2IP6, Router2IP6 = "fd78:1::2", "fd78:1::1"
	RouterIP6              = "fd77:1::1"
	// A public network that the router claims to be on the client's own link.
	LocalPublicNet  = "203.0.114.2/24"
	LocalPublicIP   = "203.0.114.1"
	LocalPublicNet6 = "2001:db8:114::2/64"
	LocalPublicIP6  = "2001:db8:114::1"
	// A container behind a bridge of the client, and the bridge.
	ContainerIP, ContainerIP6 = "172.30.0.2", "fd30::2"
	BridgeIP, BridgeIP6       = "172.30.0.1", "fd30::1"
)

// uplinkEnds are the two ends of a second uplink.
func (w *World) uplinkEnds(device string) (client, router netlab.End) {
	return netlab.Port(w.Client, device, Client2IP+"/24", Client2IP6+"/64"),
		netlab.Port(w.Router, "second", Router2IP+"/24", Router2IP6+"/64")
}

// AddUplink gives the client a second uplink, without a default route by it.
func (w *World) AddUplink(device string) error {
	client, router := w.uplinkEnds(device)
	return w.lab.Link(client, router)
}

// AddBadUplink is AddUplink with a cable that can be made bad.
func (w *World) AddBadUplink(device string, seed uint64) (*netlab.Cable, error) {
	client, router := w.uplinkEnds(device)
	c, err := w.lab.Cable(client, router, seed)
	if err == nil {
		w.Keep(c)
	}
	return c, err
}

// AddLocalPublic puts a public network on the client's link, where the router
// answers: the address of LocalPublicNet is for the client to take.
func (w *World) AddLocalPublic() error {
	return errors.Join(
		w.Router.AddAddress("client", LocalPublicIP+"/24"),
		w.Router.AddAddress("client", LocalPublicIP6+"/64"))
}

// AddContainer puts a host behind a bridge of the client, which forwards for
// it, as container runtimes do; the router knows the way back.
func (w *World) AddContainer() (*netlab.Host, error) {
	c, err := w.lab.Host("container")
	if err != nil {
		return nil, err
	}
	return c, errors.Join(
		w.lab.Link(netlab.Port(c, "eth0", ContainerIP+"/24", ContainerIP6+"/64"), netlab.Port(w.Client, "vethc")),
		w.Client.Bridge("br0", []string{BridgeIP + "/24", BridgeIP6 + "/64"}, "vethc"),
		w.Client.Forward(),
		c.Route("0.0.0.0/0", BridgeIP), c.Route("::/0", BridgeIP6),
		c.WriteFile("/etc/resolv.conf", []byte("nameserver "+DNSIP+"\n")),
		w.Router.Route("172.30.0.0/24", ClientIP), w.Router.Route("fd30::/64", ClientIP6))
}

// ServeEcho sends back what comes to an address of a host, over TCP and UDP.
func (w *World) ServeEcho(h *netlab.Host, ip, port string) error {
	address := net.JoinHostPort(ip, port)
	return errors.Join(w.ServeTCP(h, address, echo), w.echoPackets(h, address))
}
