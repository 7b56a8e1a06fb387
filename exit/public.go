package exit

import (
	"net/netip"
	"time"
)

// CheckPublic refuses every address that is not public, as the strictest Policy
// does, for those who are told where to connect to by others. It does not know
// this machine's own networks. Its errors are *Refusals.
func CheckPublic(a netip.Addr) error {
	g := gate{local: &localNets{fresh: time.Now().Add(time.Hour)}} // knows of none, and reads none
	return g.checkAddr(a)
}
