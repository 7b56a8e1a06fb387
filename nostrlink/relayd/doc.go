// Package relayd is a small Nostr relay to run inside a program: it forwards
// ephemeral events, keeps the newest of replaceable and addressable ones in
// memory, and refuses to store anything else. It is an http.Handler.
//
// What it promises beyond NIP-01:
//
//   - The events of one connection reach each subscriber in the order in which
//     they were published, and byte for byte as they came.
//   - Every event is checked, its id and its signature, before anybody gets it.
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
// A subscriber that reads more slowly than others publish to it slows them down
// once its queue (Limits.MaxQueue) is full: their events and verdicts wait, and
// so does what they publish next. One that has taken nothing for
// Limits.SlowTimeout when somebody waits is cut; one that takes a little loses
// the event after three times as long. When the messages under way need more memory than
// Limits.MaxMemory, the connection with the longest queue is cut.
package relayd
