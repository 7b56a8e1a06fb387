// Package admission decides who may use an exit: everybody, those whom the
// operator lists, or those whom people follow whom the operator trusts; not those
// who are banned; and those who hold an invitation.
//
// Bans and invitations are in a file, which several processes may change: an
// exit, another one that takes its place, and the operator's commands. Each change
// is made on the file as it is, under a lock, and replaces it as a whole; a Book
// notices what others have changed. Of an invitation the file holds the hash.
//
// An invitation admits as many identities as it is for, until it expires or is
// revoked. An identity takes it by showing its token for the first time, and is
// known by its key from then on; a token without an identity, or shown by one more
// than it is for, admits nobody.
package admission
