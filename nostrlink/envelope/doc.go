// Package envelope turns plaintext into signed Nostr events and back: keys,
// NIP-44 version 2 encryption, event ids (NIP-01) and BIP-340 signatures. It is
// the only cryptography on the data path.
//
// A [Sealer] encrypts for one peer and signs in one reused buffer. [ParseEvent]
// reads an event without copying it, [Event.Verify] checks its id and
// signature, [Open] decrypts its content. The receiver of a session's data may
// open without verifying; everything else must be verified first.
package envelope

// Event kinds of NWS.
const (
	KindNWS          = 28333 // ephemeral: the encrypted messages and packets
	KindAnnouncement = 38333 // addressable: an exit says that it exists
	KindCertificate  = 38334 // addressable: a certificate signed by a Nostr key
)

// MaxPlaintext is the most that one event may seal: the largest NIP-44 padding
// step whose event stays within the 65,536 bytes that common relays take.
const MaxPlaintext = 40960
