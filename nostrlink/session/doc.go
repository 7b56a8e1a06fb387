// Package session is the reliability layer of a link, and the only one: it
// carries streams and datagrams between two peers over carriers that may drop,
// repeat, delay and reorder whole packets at will and may come and go.
//
// # What it knows
//
// A carrier takes packets of at most MaxPacket bytes; on a Nostr relay a packet
// is one event, and the event, not the byte, is what costs. So packets are
// filled to the brim, small writes wait for company only while the first hop
// is busy, and acknowledgements ride on packets that go anyway. The package
// knows no keys, no Nostr and no names: a carrier hands it plaintext packets
// that the other end's key made.
//
// # How it works
//
// The core (core.go and the files beside it) is single-threaded, does no I/O
// and has no clock: every call carries now, and it answers with packets, a
// deadline and wake-ups. The shell (session.go, path.go, stream.go) puts one
// mutex, one goroutine per carrier and one timer round it.
//
// Packets are numbered once per direction over all carriers and never repeated:
// what a lost packet carried is sent again in new ones. A packet is lost when a
// younger one of the same path was acknowledged and it is older than the round
// trip and a window for reordering, which widens whenever a loss proves
// spurious. The congestion window follows the delivery rate and the shortest
// round trip; loss does not shrink it, because relay links are TCP and push
// back themselves. Credit per stream and for the whole session bounds what the
// other end may send, so a slow reader stops its own stream only and memory has
// a limit.
//
// # Many paths
//
// Up to a handful of carriers make one packet space: any of them may bring any
// packet and any acknowledgement, and what was lost on one goes again by
// another. Primary sends by the best of them, judged by round trip and losses;
// Stripe by all that are not much slower than the best. A path is sound while it
// acknowledges what it gets, doubtful when a probe is unanswered or its carrier
// is slow to take a packet, silent after a second probe: new packets avoid a
// doubtful path, what is overdue goes by another one, and a silent path gets
// nothing but probes, for ever, at least every two seconds while no path is
// alive. It must prove itself for longer each time before it is preferred
// again. Paths that stand by get a PING now and then. A preferred path, one that
// needs no relay, carries alone while it is sound. A first hop that refuses
// packets for their rate makes its path limited, which is no loss: they go again
// at once, and another path shares the load.
//
// Streams survive as long as anything is acknowledged within Config.DeadAfter.
//
// # Early data
//
// OPEN carries the first bytes of a stream or the first datagram of a flow, and
// more may follow before the answer, within the credit known from the
// handshake. The listener keeps it, also when it overtakes the OPEN. What was
// written before a Close still arrives; only an Abort overtakes it.
//
// # Binding
//
// A relay holds every packet in its hands. The session takes one only when its
// magic and version, direction, session id and packet number fit, and counts
// what does not (Stats.Rejected).
package session
