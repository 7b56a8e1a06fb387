package platform

import "slices"

// What Config.DNSManager may say.
const (
	DNSAuto           = "auto"           // whoever is found in charge
	DNSResolved       = "resolved"       // systemd-resolved, by D-Bus
	DNSNetworkManager = "networkmanager" // NetworkManager, by D-Bus
	DNSResolvconf     = "resolvconf"     // resolvconf or openresolv, by their program
	DNSFile           = "file"           // /etc/resolv.conf itself
	DNSNone           = "none"           // nothing is changed
)

// ValidDNSManager reports whether name is one of the above, or empty, which is
// DNSAuto.
func ValidDNSManager(name string) bool {
	return slices.Contains([]string{"", DNSAuto, DNSResolved, DNSNetworkManager, DNSResolvconf, DNSFile, DNSNone}, name)
}
