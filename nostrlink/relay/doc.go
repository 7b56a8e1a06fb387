// Package relay is the client's side of one Nostr relay: a websocket, the verbs
// of NIP-01, the answer to NIP-42, the limits of NIP-11.
//
// [Conn] is one connection and dies with it. [Client] keeps one alive: it
// redials with jitter and backoff and subscribes again. Both promise what a
// session needs of a carrier:
//
//   - Events arrive in the order in which the relay sent them, one at a time,
//     from one goroutine, as bytes that are borrowed: nothing is parsed,
//     verified or kept here.
//   - Publish does not wait for the relay's OK. It waits while a window of
//     publishes is unanswered, or while the network takes nothing: that is the
//     back-pressure. Every publish ends in exactly one verdict.
//   - A subscription counts as made when the relay has sent EOSE, so that
//     nothing is published whose answer could be missed.
//   - Every wait is bounded. Errors name the relay and what it did or did not
//     do.
//
// A relay may drop, repeat, delay, reorder and invent events. Nothing here
// protects from that; envelope and session do.
package relay
