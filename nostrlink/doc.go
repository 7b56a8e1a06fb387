// Package nostrlink carries network flows between an entry and an exit over
// Nostr relays. It is what the commands use: a [Link] dials streams to one
// exit, a [Router] picks the link by name, a [Listener] accepts them at the
// exit.
//
// The parts below it each own one thing: wire the protocol, envelope the
// crypto, relay one relay's connection, session the reliability. What is left
// for this package is their meeting: the handshake that turns two identities
// into a session, the carrier that puts session packets into events, and the
// [Hub] that shares one connection per relay among all of them.
//
// # Handshake
//
// The entry subscribes, waits until the relay has confirmed, and publishes a
// HELLO from a throw-away key to the exit's key. It holds a nonce, the entry's
// clock and a second fresh key, the session key. The exit answers from its
// identity key with WELCOME, holding a session key and a nonce of its own, or
// with REFUSED. Both derive the session's id and its NIP-44 conversation key
// from session key × session key and session key × exit identity, bound to
// everything that was exchanged. From there events are authored by and
// addressed to the session keys: a relay learns neither who the entry is nor
// which exit an event belongs to, and what it recorded stays closed after the
// identity key has leaked.
package nostrlink
