package platform

import "net/netip"

// Inspection is what this machine's network is like at one moment, in plain
// values, for checks and for people. What could not be read is empty, and
// Problems say so, one line each.
type Inspection struct {
	Links    []LinkState   `json:"links"`
	Rules    []RuleState   `json:"rules"`  // by family, in the order the kernel asks them
	Routes   []RouteState  `json:"routes"` // of all tables but the kernel's own, local
	Filters  []FilterTable `json:"nftables"`
	Filtered bool          `json:"nftables_read"` // Filters is what there is
	// Settings are the sysctls that decide about ways, below net, with dots.
	Settings map[string]string `json:"settings"`
	Resolver ResolverState     `json:"resolver"`
	// Owner is the user whose tunnel has changed this machine, 0 if none has.
	Owner    uint32   `json:"owner"`
	Problems []string `json:"problems,omitempty"`
}

// LinkState is a network interface.
type LinkState struct {
	Index     int            `json:"index"`
	Name      string         `json:"name"`
	Kind      string         `json:"kind"` // of the driver, as "veth"; "" for hardware
	TUN       bool           `json:"tun"`
	Loopback  bool           `json:"loopback"`
	Up        bool           `json:"up"`
	MTU       int            `json:"mtu"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// RuleState is a routing rule.
type RuleState struct {
	Family   int    `json:"family"` // 4 or 6
	Priority int    `json:"priority"`
	Ours     bool   `json:"ours"`            // made by a tunnel of this program
	All      bool   `json:"all"`             // it takes every packet, or every one of a mark
	Users    bool   `json:"users,omitempty"` // it takes those of some users only, FirstUID to LastUID
	FirstUID uint32 `json:"first_uid,omitempty"`
	LastUID  uint32 `json:"last_uid,omitempty"`
	Mark     uint32 `json:"mark,omitempty"`
	Mask     uint32 `json:"mask,omitempty"`
	Table    int    `json:"table,omitempty"`
	Text     string `json:"text"` // as the ip program writes it
}

// RouteState is a route.
type RouteState struct {
	Family   int          `json:"family"` // 4 or 6
	Table    int          `json:"table"`
	To       netip.Prefix `json:"to"`
	Kind     string       `json:"kind"` // unicast, unreachable, throw, …
	Device   string       `json:"device,omitempty"`
	Gateway  netip.Addr   `json:"gateway,omitzero"`
	Metric   int          `json:"metric"`
	Ours     bool         `json:"ours"`
	Protocol int          `json:"protocol"`
}

// FilterTable is a table of nftables.
type FilterTable struct {
	Family string        `json:"family"` // inet, ip, ip6, …
	Name   string        `json:"name"`
	Chains []FilterChain `json:"chains,omitempty"`
}

// FilterChain is a chain of a table. Hook, Kind and Drop are of base chains.
type FilterChain struct {
	Name  string `json:"name"`
	Kind  string `json:"kind,omitempty"` // filter, route or nat
	Hook  string `json:"hook,omitempty"` // output, forward, …
	Drop  bool   `json:"drop"`           // what no rule decides about is dropped
	Rules int    `json:"rules"`
}

// ResolverState is the resolver's file of this machine.
type ResolverState struct {
	Path    string       `json:"path"`
	Link    string       `json:"link,omitempty"` // where it points, if it is a symbolic link
	Ours    bool         `json:"ours"`
	Servers []netip.Addr `json:"servers,omitempty"`
	// Manager is who was told of the tunnel's name servers, as DNSResolved and
	// so on; "" if nobody was.
	Manager string `json:"manager,omitempty"`
	// Tunnel are these servers.
	Tunnel []netip.Addr `json:"tunnel,omitempty"`
	// Uplink are the servers that the machine would ask without us, as far as
	// that can be known.
	Uplink []netip.Addr `json:"uplink,omitempty"`
}

// Ability is something that the program needs of the machine. Missing is "" when
// it is there, else why not and what to do, in one line.
type Ability struct {
	Name    string
	Missing string
	Unknown bool // without more permissions; Missing says what for
}

// The names of Abilities.
const (
	AbilityAdmin = "permissions"     // CAP_NET_ADMIN
	AbilityTUN   = "TUN device"      // /dev/net/tun
	AbilityNFT   = "packet filter"   // nf_tables
	AbilityUser  = "user namespaces" // for exec
	AbilityGroup = "control groups"  // version 2
	AbilityIPv6  = "IPv6"
)

// Question asks the kernel which way a packet would take.
type Question struct {
	To     netip.Addr
	From   netip.Addr // of the sender, or invalid
	Device string     // the sender's socket is bound to, or ""
	In     string     // the device that a forwarded packet came in by, or ""
	Mark   uint32
	User   *uint32 // the sender's, nil for that of this process
}

// Way is the kernel's answer: a device, or "" when it refuses the packet.
type Way struct {
	Device  string
	Refused string // the error that a program would see
	Here    bool   // this machine's own programs get it, alone or with others
}
