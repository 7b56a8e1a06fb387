// Package exit is the far end of the tunnel: it dials, for strangers, what
// they ask for, and joins the two.
//
// A Server is handed requests (a network and a destination each), answers
// every one of them exactly once, and carries what was accepted until it ends.
// It needs no privilege, no TUN and no NAT: sockets only.
//
// The Policy stands between a stranger and the operator's own networks. It
// judges addresses, never names: a name is resolved here, all its addresses
// are judged before the first is dialled, and the one that the kernel is about
// to connect to is judged once more, so that neither a name server that
// changes its mind nor an address in disguise gets through. What the operator
// named as a service behind the exit's own .nostr name is reached whatever the
// policy says.
//
// Every refusal is a *Refusal: it carries the code that becomes the right
// errno in the application at the other end, a text for its user, and a Reason
// to count by. Destinations are logged at debug level only.
package exit
