// Package cert binds TLS certificates to Nostr keys.
//
// A service behind a .nostr name cannot get a certificate from a public
// authority. It makes one itself (a [Keeper] does), and vouches for it with an
// event of kind 38334, signed by the key in the name: an [Attestation]. Whoever
// knows the name can so verify the service's TLS. The private key of the
// certificate stays in a file of its owner's. It is never published, not even
// encrypted as kind 38335, which exits of the reference implementation do.
//
// The event is addressable, one for each key of a certificate, and holds the
// certificate or only the hash of its public key:
//
//	["d", "<spki>"]            SHA-256 of the SubjectPublicKeyInfo, hexadecimal
//	["p", "<author>"]          by which the reference implementation looks for it
//	["spki", "<spki>"]
//	["alt", "TLS certificate of …"]
//	["expiration", "1797819605"]
//	content: the certificate in PEM, or nothing
//
// The reference implementation publishes the p tag and the content alone; such
// an event counts as long as its certificate is valid. (The certificates that it
// makes end in the second they begin, so that none of these counts.)
//
// The same event can travel inside the certificate, in an extension of its own:
// see [NewAttested]. Then nothing has to be looked up, and the Nostr key need
// not be where the service runs.
//
// An [Authority] is for users' browsers, which know nothing of Nostr: a local
// certificate authority, good for nothing but .nostr names, in whose name this
// machine presents the sites that it has verified.
package cert
