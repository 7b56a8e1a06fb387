// Package relayd is a Nostr relay to run inside a program: it forwards ephemeral
// events, keeps events of chosen kinds by the rules of NIP-01, and refuses to keep
// anything else. It is an http.Handler. It also does NIP-09 (deletion), 11
// (description), 13 (proof of work), 40 (expiration), 42 (authentication), 45
// (COUNT) and 70 (protected events).
//
// What it promises beyond these:
//
//   - The events of one connection reach each subscriber in the order in which
//     they were published, and byte for byte as they came.
//   - Every event's id is checked before anybody gets it, and so is its signature,
//     with one exception: ephemeral events whose author's key the publishing
//     connection has proved to hold. Nobody else can publish those unsigned, so a
//     bad signature harms only its author, whose recipients may look at it.
//   - An event that is kept is accepted (OK true) once it is on disk, if there is
//     a file. It may have reached subscribers before.
//   - An ephemeral event that nobody is subscribed to gets OK false with the
//     prefix "mute:".
//   - Nothing grows without bound: connections, subscriptions, filter values,
//     stored events, and the memory of messages under way have limits.
//
// An event goes through these hands, a goroutine each:
//
//  1. The reader of the publisher's connection takes the message from the
//     network and apart, and hands an event to
//  2. a worker, of which there is one per processor, for the check; while the
//     reader goes on with the next message.
//  3. The connection's sequencer waits for the checks in the order in which the
//     messages came, looks the subscribers up by recipient, author or kind, puts
//     the event into their queues and answers OK.
//  4. The writer of each subscriber's connection sends it, from the very buffer
//     that the reader filled.
//
// What is kept is in memory with indexes by id, author, kind and tag (store); the
// file (disk) is a copy of it, written in groups and read at the start.
//
// A publisher whose events all go to one subscriber goes at its pace once its
// queue (Limits.MaxQueue) is full. One that serves several waits for none of them
// for long: who is too slow loses events then, and only its own. If some of the
// subscribers of an event have proved to hold the key that it is addressed to,
// only they count, so that strangers who subscribe too change nothing. Who takes
// nothing for Limits.SlowTimeout while somebody has something for it is cut. When
// the messages under way need more memory than Limits.MaxMemory, the connection
// with the longest queue is cut.
package relayd
