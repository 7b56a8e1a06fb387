// Package relaytest is a Nostr relay that misbehaves as told, for tests.
//
// It speaks over a loopback socket, or in memory, where it also works inside a
// testing/synctest bubble. It verifies nothing, stores nothing unless asked to,
// and delivers events to the subscriptions they match, after whatever its
// [Behaviour] does to them: delay, jitter, loss, repetition, disorder, batches as
// strfry makes them. It can also refuse, stay silent, send garbage, stop
// reading, cut connections, and attack: see [Attack]. Choices by chance come
// from a seed.
package relaytest
