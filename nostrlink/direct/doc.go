// Package direct carries a session over a connection between its two ends,
// without a relay: CONNECTR of NWS, but encrypted and authenticated.
//
// The end that can be reached from outside listens and says so in the
// handshake; the other end dials. Either end of a session may do either.
//
// # Who may connect
//
// A connection is TLS 1.3 and bound to one session. Both ends derive from the
// session's key, which only the holders of both their Nostr keys know,
//
//   - a name of 16 random bytes, which the dialer sends as the server name (SNI), and
//   - an Ed25519 key for each end, which signs its half of the handshake.
//
// So there is nothing to publish, to look up or to expire, no clock matters, and
// what authenticates is gone with the session: a certificate that the Nostr key
// attests to would be worth more to a thief and would have to be shown to
// whoever connects. The listener knows by the name which session is meant and
// shows strangers, who know none, an alert and nothing else: no certificate and
// no key. Who watches sees the name, and can use it for nothing but to be shown
// a certificate of a key that nobody has seen elsewhere. The keys only
// authenticate: secrecy comes from TLS's own exchange, so that who learns the
// session's key later still cannot read what passed.
//
// # What passes
//
// Each packet of the session follows its length, two bytes, the high one first. A
// length of zero is no packet. The listener sends one when it has taken the
// connection, since in TLS 1.3 the dialer does not learn that otherwise.
//
// # Bounds
//
// A [Listener] has at most 64 connections that have not proven themselves, 8 from
// one address, and gives each five seconds. A [Dialer] makes at most 32
// connections at a time and, after a burst, 4 a second, whoever asks.
package direct
