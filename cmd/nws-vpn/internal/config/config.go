// Package config reads nws-vpn's configuration file.
//
// The file is TOML. Its sections are the fields of Config, and nws.toml.example
// at the top of the repository shows every key with its default. What is left
// out has its default; what is in the file must be right: a key that nobody
// knows, or a value that makes no sense, is an error that names the file, the
// line, the key and what would be right. Nothing is guessed and nothing
// skipped, for a typo in a VPN's configuration must not pass for a wish.
package config

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/platform"
)

// DefaultPath is read when no file is named, if it exists. See Path.
const DefaultPath = "/etc/nws-vpn/nws.toml"

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Config is the whole file. Load and Default return usable ones: every string
// in them has been checked.
type Config struct {
	// LogLevel is the least urgent level that is logged: debug, info, warn or
	// error. At debug, logs hold destinations.
	LogLevel string `toml:"log_level"`

	Up    Up    `toml:"up"`
	Exit  Exit  `toml:"exit"`
	Relay Relay `toml:"relay"`

	// Names are petnames: blog = "npub1…" makes blog.nostr that exit.
	Names map[string]string `toml:"names"`
}

// Up is for `nws-vpn up`.
type Up struct {
	// Exit is where traffic leaves: any form of name.Parse, a petname, or
	// AutoExit.
	Exit string `toml:"exit"`
	// Relays are the relays' URLs. Without any, those in Exit count.
	Relays []string `toml:"relays"`
	// RelayKeyFile holds the secret key of who is a member of relays that have
	// members; empty for none. Those of Relays that ask (NIP-42) are told.
	RelayKeyFile string `toml:"relay_key_file"`
	// RelayListen is the address for a relay of this machine's own, with the
	// settings of Relay; empty for none.
	RelayListen string `toml:"relay_listen"`
	// IdentityFile holds the secret key of the identity that is proven to Exit, and
	// to no other exit; empty for none.
	IdentityFile string `toml:"identity_file"`
	// Trust are the exits that may be chosen among, and TrustFollows those
	// whose follow lists name more of them; npubs or hexadecimal keys.
	Trust        []string `toml:"trust"`
	TrustFollows []string `toml:"trust_follows"`
	// Spread is how several relays are used: one of Spreads.
	Spread string `toml:"spread"`
	// Duplicate sends small packets over two relays at once.
	Duplicate bool `toml:"duplicate"`
	// Mode is what is spoken with the exit: ModeAuto, ModeSession or ModeNWS.
	Mode string `toml:"mode"`
	// NWSResolver is where the names go that are asked for when the exit knows
	// no session and so has no resolver to offer: IP or IP:port, for DNS over
	// TCP through the exit. Empty: names do not resolve then.
	NWSResolver string `toml:"nws_resolver"`
	// PublicAddress, host:port, is where the exit reaches this machine, for a
	// path that needs no relay (CONNECTR). NWSClearText allows exits that know no
	// session to connect to it, too, in the clear.
	PublicAddress string `toml:"public_address"`
	NWSClearText  bool   `toml:"nws_clear_text"`
	// Direct connects to the exit where that says it can be reached, for a path
	// that needs no relay. The exit then knows this machine's address.
	Direct bool `toml:"direct"`
	// EarlyPorts are the TCP ports whose clients speak first: connections are
	// accepted at once and their first bytes travel with the request.
	EarlyPorts []uint16 `toml:"early_ports"`
	// Device is the TUN's name, MTU its largest packet in bytes.
	Device string `toml:"device"`
	MTU    int    `toml:"mtu"`
	// Mark is the firewall mark of sockets that bypass the tunnel, Table the
	// number of the routing table for all else.
	Mark  uint32 `toml:"mark"`
	Table int    `toml:"table"`
	// DNS points the machine's resolver at the tunnel. Queries that programs
	// send elsewhere are answered there in any case.
	DNS bool `toml:"dns"`
	// DNSManager says who is told of it: see platform.DNSAuto.
	DNSManager string `toml:"dns_manager"`
	// DNSOverTLS lets programs ask servers of their own for names, encrypted
	// (port 853), through the tunnel.
	DNSOverTLS bool `toml:"dns_over_tls"`
	// KillSwitch is what keeps traffic from leaving outside the tunnel: one of
	// KillSwitches.
	KillSwitch string `toml:"kill_switch"`
	// AllowLAN lets programs reach the private networks this machine is on.
	AllowLAN bool `toml:"allow_lan"`
	// Inbound lets connections from outside work on.
	Inbound bool `toml:"inbound"`
	// Forward is what becomes of traffic that the machine forwards, such as that
	// of containers: ForwardTunnel or ForwardBlock.
	Forward string `toml:"forward"`
	// Exclude are networks that are reached outside the tunnel, Include the only
	// ones that go into it.
	Exclude []netip.Prefix `toml:"exclude"`
	Include []netip.Prefix `toml:"include"`
	// ExcludeDomains and IncludeDomains are the same by names: each means the
	// domain itself and all below it.
	ExcludeDomains []string `toml:"exclude_domains"`
	IncludeDomains []string `toml:"include_domains"`
	// ExcludeUsers are users whose programs stay outside the tunnel, IncludeUsers
	// the only ones whose programs go into it: see UserIDs.
	ExcludeUsers []string `toml:"exclude_users"`
	IncludeUsers []string `toml:"include_users"`
	// ExcludeCgroup is the path of a cgroup of version 2 whose programs stay
	// outside the tunnel.
	ExcludeCgroup string `toml:"exclude_cgroup"`
	// UDPIdle ends a UDP flow in which nothing has passed for so long.
	UDPIdle Duration `toml:"udp_idle"`
	// TrustSites presents verified .nostr sites in the name of the machine's own
	// authority.
	TrustSites bool `toml:"trust_sites"`
}

// Exit is for `nws-vpn exit`. See exit.Config and exit.Policy.
type Exit struct {
	// KeyFile holds the exit's secret key.
	KeyFile string `toml:"key_file"`
	// CertificateFile holds the certificate of services over TLS and its private
	// key. Empty: KeyFile with .tls added.
	CertificateFile string `toml:"certificate_file"`
	// Relays are the URLs of the relays it listens on.
	Relays []string `toml:"relays"`
	// RelayListen is the address for a relay of the exit's own, with the settings
	// of Relay; empty for none.
	RelayListen string `toml:"relay_listen"`
	// Mode is whom it serves: ModeAuto, or only entries that know the session,
	// ModeSession.
	Mode string `toml:"mode"`
	// ConnectR is how it connects to entries that ask for it, at what the policy
	// admits: ConnectROff, ConnectRTLS or ConnectRClear.
	ConnectR string `toml:"connectr"`
	// PublicAddress, host:port, is where entries reach it, for a path that
	// needs no relay.
	PublicAddress string `toml:"public_address"`
	// Announce publishes that the exit is there, on its relays, for everybody.
	Announce bool `toml:"announce"`
	// Contact of the operator, and Instance to tell exits of one key apart, are
	// in the announcement.
	Contact  string `toml:"contact"`
	Instance string `toml:"instance"`
	// Services are what stands behind the ports of its .nostr name.
	Services map[uint16]exit.Target `toml:"services"`
	// AllowPrivate opens prefixes that are refused by default.
	AllowPrivate []netip.Prefix `toml:"allow_private"`
	// Rules say what may be dialled, the first that matches; Policy is the preset
	// that decides about the rest.
	Rules  []exit.Rule `toml:"rules"`
	Policy string      `toml:"policy"`
	// Nameservers resolve names, instead of the system's.
	Nameservers []exit.Nameserver `toml:"nameservers"`
	// Admission is who may use it: AdmitAll, AdmitListed or AdmitFollowed. Allow are
	// those who are listed, WoT those whose follow lists count; npubs.
	Admission string   `toml:"admission"`
	Allow     []string `toml:"allow"`
	WoT       []string `toml:"wot"`
	// MaxClientSessions bounds the sessions of one identity; zero for no bound.
	MaxClientSessions int `toml:"max_client_sessions"`
	// StateDir is the directory of the exit's socket and of what it remembers;
	// see ExitStateDir.
	StateDir string `toml:"state_dir"`
	// Metrics is where Prometheus finds figures, as Relay.Metrics.
	Metrics string `toml:"metrics"`
	// MaxSessions and MaxFlows bound those that are open at a time.
	MaxSessions int `toml:"max_sessions"`
	MaxFlows    int `toml:"max_flows"`
	// The others are what each client may take, but for TotalBytesPerSecond; zero
	// for no bound. See exit.Limits.
	MaxClients          int      `toml:"max_clients"`
	MaxClientFlows      int      `toml:"max_client_flows"`
	FlowsPerSecond      int      `toml:"flows_per_second"`
	QueriesPerSecond    int      `toml:"queries_per_second"`
	BytesPerSecond      Size     `toml:"bytes_per_second"`
	TotalBytesPerSecond Size     `toml:"total_bytes_per_second"`
	QuotaDay            Size     `toml:"quota_day"`
	QuotaMonth          Size     `toml:"quota_month"`
	FlowIdle            Duration `toml:"flow_idle"`
	FlowLife            Duration `toml:"flow_life"`
	// DialTimeout bounds a dial, lookup included.
	DialTimeout Duration `toml:"dial_timeout"`
	// UDPIdle ends a UDP flow in which nothing has passed for so long.
	UDPIdle Duration `toml:"udp_idle"`
	// Names are other names of the exit, under the same policy and limits.
	Names map[string]ExitName `toml:"names"`
}

// Relay is for `nws-vpn relay`, and for the relay within an exit or a client.
type Relay struct {
	// Listen is the address to listen on, host:port.
	Listen string `toml:"listen"`
	// URL is how clients reach the relay, if not by the address it listens on.
	URL string `toml:"url"`
	// Name, Description and Contact are what the relay says of itself.
	Name        string `toml:"name"`
	Description string `toml:"description"`
	Contact     string `toml:"contact"`

	// Database is the file for the events that are kept; empty for memory.
	Database string `toml:"database"`
	// Keep are the kinds of events that are kept; see relayd.ParseKinds.
	Keep []string `toml:"keep"`
	// MaxKept and MaxKeptBytes bound the events that are kept, KeepFor how long
	// one is after its created_at; zero for no bound.
	MaxKept      int      `toml:"max_kept"`
	MaxKeptBytes Size     `toml:"max_kept_bytes"`
	KeepFor      Duration `toml:"keep_for"`

	// Members are the only ones who may use the relay, npubs; none for everybody.
	Members []string `toml:"members"`
	// MinPoW is the proof of work of an event to keep, in bits.
	MinPoW int `toml:"min_pow"`

	// TLSCert and TLSKey are files. ACMEHosts are the names for which a
	// certificate is got by ACME, from the CA at ACMEDirectory and kept in
	// ACMEDir, with ACMEEmail as the contact.
	TLSCert       string   `toml:"tls_cert"`
	TLSKey        string   `toml:"tls_key"`
	ACMEHosts     []string `toml:"acme_hosts"`
	ACMEDir       string   `toml:"acme_dir"`
	ACMEEmail     string   `toml:"acme_email"`
	ACMEDirectory string   `toml:"acme_directory"`
	// BehindProxy takes clients' addresses from X-Forwarded-For.
	BehindProxy bool `toml:"behind_proxy"`

	// MaxEventBytes bounds an event's JSON.
	MaxEventBytes Size `toml:"max_event_bytes"`
	// MaxConnections bounds the clients connected at a time, and
	// MaxConnectionsPerAddress those of one address.
	MaxConnections           int `toml:"max_connections"`
	MaxConnectionsPerAddress int `toml:"max_connections_per_address"`
	MaxSubscriptions         int `toml:"max_subscriptions"`
	// EventsPerSecond, BytesPerSecond and RequestsPerSecond bound what each
	// client may publish and ask; those with Address in their names what one
	// address may, those with Key what one author; zero for no bound.
	EventsPerSecond          int  `toml:"events_per_second"`
	BytesPerSecond           Size `toml:"bytes_per_second"`
	RequestsPerSecond        int  `toml:"requests_per_second"`
	AddressEventsPerSecond   int  `toml:"address_events_per_second"`
	AddressBytesPerSecond    Size `toml:"address_bytes_per_second"`
	AddressRequestsPerSecond int  `toml:"address_requests_per_second"`
	KeyEventsPerSecond       int  `toml:"key_events_per_second"`
	KeyBytesPerSecond        Size `toml:"key_bytes_per_second"`

	// Metrics is where Prometheus finds figures: host:port on loopback, or unix:
	// and the path of a socket; empty for nowhere.
	Metrics string `toml:"metrics"`
	// LogEvents prints a line for each event: kind, author, recipient, size.
	LogEvents bool `toml:"log_events"`
}

// AutoExit for an exit is the best of those that Trust and TrustFollows admit.
const AutoExit = "auto"

// Spreads are the ways to use several relays: the best one while the others
// stand by, or all of them by their rates.
var Spreads = [...]string{"primary", "stripe"}

// KillSwitches are none but the routes, a packet filter while the tunnel is up,
// and one that stays.
var KillSwitches = [...]string{"off", "on", "lockdown"}

// What becomes of forwarded traffic: it goes into the tunnel, or nowhere.
const (
	ForwardTunnel = "tunnel"
	ForwardBlock  = "block"
)

// Who may use an exit: everybody, those who are listed, or also those whom people
// follow who are named.
const (
	AdmitAll      = "open"
	AdmitListed   = "allowlist"
	AdmitFollowed = "wot"
)

// What is spoken at the other end: the session, NWS as it is written, or what it
// understands.
const (
	ModeAuto    = "auto"
	ModeSession = "session"
	ModeNWS     = "nws"
)

// How an exit connects to entries: not at all; within a session, with TLS that is
// bound to it; or also without a session, in the clear.
const (
	ConnectROff   = "off"
	ConnectRTLS   = "tls"
	ConnectRClear = "clear"
)

// Default returns what holds without a file.
func Default() *Config {
	return &Config{
		LogLevel: "info",
		Up: Up{
			Spread:      Spreads[0],
			Mode:        ModeAuto,
			NWSResolver: "9.9.9.9:53",
			EarlyPorts:  []uint16{80, 443, 8080},
			Device:      "nws0",
			MTU:         1500,
			Mark:        platform.DefaultMark,
			Table:       platform.DefaultTable,
			DNS:         true,
			DNSManager:  platform.DNSAuto,
			DNSOverTLS:  true,
			KillSwitch:  "on",
			Inbound:     true,
			Forward:     ForwardTunnel,
			UDPIdle:     Duration(5 * time.Minute),
		},
		Exit: Exit{
			Mode:        ModeAuto,
			ConnectR:    ConnectRTLS,
			Policy:      exit.DefaultPreset,
			Admission:   AdmitAll,
			MaxSessions: 1024,
			MaxFlows:    exit.DefaultMaxFlows,
			MaxClients:  exit.DefaultClients,
			FlowIdle:    defaultFlowIdle,
			DialTimeout: Duration(exit.DefaultDialTimeout),
			UDPIdle:     Duration(exit.DefaultUDPIdle),
		},
		Relay: Relay{
			Listen: "127.0.0.1:7777",
			Name:   "nws-vpn relay",

			Keep:         []string{"3", "5", "10002", "38333-38334"},
			MaxKept:      10000,
			MaxKeptBytes: 64 << 20,

			ACMEDirectory: "https://acme-v02.api.letsencrypt.org/directory",

			MaxEventBytes:            65536,
			MaxConnections:           1024,
			MaxConnectionsPerAddress: 100,
			MaxSubscriptions:         64,
			RequestsPerSecond:        50,
		},
	}
}

// Load reads the file at path. An empty path stands for Path, which may be
// missing. The error lists what is wrong, a line for each.
func Load(path string) (*Config, error) {
	if path == "" {
		var there bool
		if path, there = find(); !there {
			return Default(), nil
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, text)
}

// Duration is a time.Duration that is written "90s" or "2m30s" in the file.
type Duration time.Duration

// Duration returns d as the standard library's type.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// String writes d as it is read.
func (d Duration) String() string { return time.Duration(d).String() }
