package platform

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"

	"github.com/godbus/dbus/v5"
)

const (
	nmPath       = "/org/freedesktop/NetworkManager"
	nmDNSPath    = "/org/freedesktop/NetworkManager/DnsManager"
	nmDNSManager = "org.freedesktop.NetworkManager.DnsManager"
	nmActive     = "org.freedesktop.NetworkManager.Connection.Active"
	nmGlobalDNS  = "GlobalDnsConfiguration"
)

// nmChange gives NetworkManager servers that count instead of those of its
// connections, whichever these are and become: as the configuration of the
// machine as a whole, which outlives NetworkManager and a restart of the
// machine. It writes them where its mode says, into the resolver's file or its
// own forwarder.
type nmChange struct {
	Servers []netip.Addr
	Saved   nmGlobal
}

// nmGlobal is NetworkManager's configuration of names for the whole machine; it
// is empty on most.
type nmGlobal struct {
	Searches []string            `json:",omitempty"`
	Options  []string            `json:",omitempty"`
	Domains  map[string]nmDomain `json:",omitempty"`
}

// nmDomain is who is asked for the names of a domain; "*" stands for all.
type nmDomain struct {
	Servers []string `json:",omitempty"`
	Options []string `json:",omitempty"`
}

// value is g as NetworkManager takes it.
func (g nmGlobal) value() map[string]dbus.Variant {
	v := make(map[string]dbus.Variant)
	add := func(to map[string]dbus.Variant, key string, list []string) {
		if len(list) > 0 {
			to[key] = dbus.MakeVariant(list)
		}
	}
	add(v, "searches", g.Searches)
	add(v, "options", g.Options)
	domains := make(map[string]dbus.Variant)
	for name, d := range g.Domains {
		one := make(map[string]dbus.Variant)
		add(one, "servers", d.Servers)
		add(one, "options", d.Options)
		domains[name] = dbus.MakeVariant(one)
	}
	if len(domains) > 0 {
		v["domains"] = dbus.MakeVariant(domains)
	}
	return v
}

// nmGlobalFrom reads what NetworkManager gives; what it does not understand it
// leaves out.
func nmGlobalFrom(v map[string]dbus.Variant) nmGlobal {
	g := nmGlobal{Searches: stringsIn(v, "searches"), Options: stringsIn(v, "options")}
	domains, _ := v["domains"].Value().(map[string]dbus.Variant)
	for name, d := range domains {
		one, _ := d.Value().(map[string]dbus.Variant)
		if g.Domains == nil {
			g.Domains = make(map[string]nmDomain)
		}
		g.Domains[name] = nmDomain{stringsIn(one, "servers"), stringsIn(one, "options")}
	}
	return g
}

func stringsIn(v map[string]dbus.Variant, key string) []string {
	list, _ := v[key].Value().([]string)
	if len(list) == 0 {
		return nil
	}
	return list
}

// wanted is the configuration that the change makes.
func (n *nmChange) wanted() nmGlobal {
	var servers []string
	for _, s := range n.Servers {
		servers = append(servers, s.String())
	}
	return nmGlobal{Domains: map[string]nmDomain{"*": {Servers: servers}}}
}

// isOurs reports whether g is what the change makes.
func (n *nmChange) isOurs(g nmGlobal) bool { return reflect.DeepEqual(g, n.wanted()) }

func (n *nmChange) String() string { return "set the name servers in NetworkManager" }

// openNM connects to NetworkManager.
func openNM(e *env) (*bus, error) {
	b, err := openBus(e)
	if err != nil {
		return nil, err
	}
	if err := b.here(nmName); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func readNMGlobal(b *bus) (nmGlobal, error) {
	var v map[string]dbus.Variant
	err := b.get(nmName, nmPath, nmName, nmGlobalDNS, &v)
	return nmGlobalFrom(v), err
}

func writeNMGlobal(b *bus, g nmGlobal) error {
	return b.call(nmName, nmPath, "org.freedesktop.DBus.Properties.Set", []any{nmName, nmGlobalDNS, dbus.MakeVariant(g.value())})
}

func (n *nmChange) inForce(e *env) (bool, error) {
	b, err := openNM(e)
	if err != nil {
		return false, err
	}
	defer b.close()
	now, err := readNMGlobal(b)
	return err == nil && n.isOurs(now), err
}

func (n *nmChange) apply(e *env) error {
	b, err := openNM(e)
	if err != nil {
		return err
	}
	defer b.close()
	return writeNMGlobal(b, n.wanted())
}

// undo puts back what was configured, unless somebody has changed ours since.
// The servers of the connections, which count again then, are those of the
// network the machine is on now.
func (n *nmChange) undo(e *env) error {
	b, err := openNM(e)
	if errors.Is(err, errElsewhere) {
		return nil
	}
	if isAbsent(err) {
		return fmt.Errorf("NetworkManager remembers the tunnel's name servers, but cannot be told to forget them (%w): start it first", err)
	}
	if err != nil {
		return err
	}
	defer b.close()
	now, err := readNMGlobal(b)
	if err != nil || !n.isOurs(now) {
		return err
	}
	return writeNMGlobal(b, n.Saved)
}

func (n *nmChange) note(err error) string {
	return fmt.Sprintf("cannot give NetworkManager the tunnel's name servers (%v): programs go on asking its own, through the tunnel; remove a global-dns section from its configuration, or set dns_manager", err)
}

// nmUplink returns the name servers of NetworkManager's connections, the
// primary one's first.
func nmUplink(e *env) ([]netip.Addr, error) {
	b, err := openNM(e)
	if err != nil {
		return nil, err
	}
	defer b.close()
	var primary dbus.ObjectPath
	var active []dbus.ObjectPath
	if err := b.get(nmName, nmPath, nmName, "ActiveConnections", &active); err != nil {
		return nil, err
	}
	_ = b.get(nmName, nmPath, nmName, "PrimaryConnection", &primary)
	slices.SortStableFunc(active, func(x, y dbus.ObjectPath) int {
		return btoi(y == primary) - btoi(x == primary)
	})
	var servers []netip.Addr
	for _, conn := range active[:min(len(active), 8)] {
		servers = append(servers, nmServers(b, string(conn))...)
	}
	return servers, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// nmServers returns the servers of one connection; none where it does not know.
func nmServers(b *bus, conn string) []netip.Addr {
	var servers []netip.Addr
	var config dbus.ObjectPath
	var data []map[string]dbus.Variant
	if b.get(nmName, conn, nmActive, "Ip4Config", &config) == nil &&
		b.get(nmName, string(config), nmName+".IP4Config", "NameserverData", &data) == nil {
		for _, d := range data {
			text, _ := d["address"].Value().(string)
			if a, err := netip.ParseAddr(text); err == nil {
				servers = append(servers, a)
			}
		}
	}
	var list [][]byte
	if b.get(nmName, conn, nmActive, "Ip6Config", &config) == nil &&
		b.get(nmName, string(config), nmName+".IP6Config", "Nameservers", &list) == nil {
		index := nmInterface(b, conn)
		for _, raw := range list {
			if a, ok := addrFromBytes(raw, index); ok {
				servers = append(servers, a)
			}
		}
	}
	return servers
}

// nmInterface returns the index of a connection's interface, 0 if it cannot be
// told.
func nmInterface(b *bus, conn string) int {
	var devices []dbus.ObjectPath
	var name string
	if b.get(nmName, conn, nmActive, "Devices", &devices) != nil || len(devices) == 0 ||
		b.get(nmName, string(devices[0]), nmName+".Device", "Interface", &name) != nil {
		return 0
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return i.Index
}
