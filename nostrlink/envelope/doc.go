// Package envelope turns plaintext into signed Nostr events and back: keys,
// NIP-44 version 2 encryption, event ids (NIP-01) and BIP-340 signatures. It is
// the only cryptography on the data path.
//
// A [Sealer] encrypts for one peer and signs; [Sign] makes events that anyone
// may read. [ParseEvent] reads an event without copying it, [Event.Verify] or a
// [Verifier] checks its id and signature, [Open] decrypts its content. A payload
// that opens was made by one of the two who share the key, but the event round
// it (its author, time, kind and tags) is nobody's word until it is verified,
// and the payload may be an old one or the receiver's own. So everything must be
// verified before it is opened, with one exception: the data of a session whose
// packets carry what tells them apart (direction, session, number).
//
// # Timing
//
// What is computed with a secret key (public keys, conversation keys,
// signatures) neither branches on the key nor looks it up in memory, and MACs
// are compared in constant time. go-nostr and the decred package below it do not
// promise that. Signatures use BIP-340's nonces, which depend on the message, so
// that no repeated randomness (a cloned machine's, say) gives a key away.
// Verification takes the time that its public inputs need.
//
// # Printing
//
// [SecretKey] and [ConversationKey] print, log and marshal as a placeholder or
// not at all.
package envelope

// Event kinds of NWS.
const (
	KindNWS          = 28333 // ephemeral: the encrypted messages and packets
	KindIdentity     = 28334 // ephemeral and never published: proves who greets
	KindAnnouncement = 38333 // addressable: an exit says that it exists
	KindCertificate  = 38334 // addressable: a certificate signed by a Nostr key
)

// MaxPlaintext is the most that one event may seal: the largest NIP-44 padding
// step whose event stays within the 65,536 bytes that common relays take.
const MaxPlaintext = 40960
