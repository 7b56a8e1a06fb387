// Package announce is how exits are found: it writes and reads announcements
// (kind 38333), collects those of many exits, and chooses among exits that the
// user's rule admits. It does no I/O and has no clock: events and the time are
// handed in.
//
// An announcement is an addressable event (NIP-01) with an expiration (NIP-40).
// Its tags are the announcement; its content is empty:
//
//	["d", "nws"]                        one per instance of an exit
//	["alt", "NWS exit node …"]          for programs that know nothing of this
//	["relay", "wss://…"]                where the exit listens, best first
//	["transport", "direct", "h:p"]      a TCP address of its own
//	["transport", "wsn", "wsn://…"]     a relay addressed by its key
//	["ports", "1-24", "26-65535"]       what may be dialled
//	["network", "ipv4", "ipv6"]         which addresses it reaches
//	["price", "5", "SAT", "GB"]         amount, currency, what it buys
//	["admission", "allowlist"]          whom it serves: those it knows, or was told to
//	["software", "nws-vpn/0.4"]
//	["version", "1"]                    of the session protocol; none: plain NWS
//	["load", "35"]                      per cent
//	["contact", "npub1…"]
//	["status", "closed"]                a replacement that takes the rest back
//	["expiration", "1795228203"]
//
// All but the expiration may be missing, and unknown tags are ignored. The
// reference implementation of NWS announces with an expiration alone, ten
// seconds ahead, every ten seconds: its exits are reached through the relays
// where the announcement was found, which a [Book] therefore notes.
//
// Everything here may come from strangers. An announcement proves who made it
// and nothing else: neither that the exit works nor that it is honest. So
// nothing is chosen without a [Trust], and what is read is bounded, printable,
// and free of addresses that would make this machine talk to its own network.
package announce
