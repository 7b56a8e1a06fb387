package envelope

import (
	"sync"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/secp"
)

// Verifier verifies events as [Event.Verify] does, and faster those of keys
// that it has seen often: it makes tables for them. It may be used
// concurrently.
type Verifier struct {
	max int

	mu     sync.Mutex
	tables map[PublicKey]*secp.Key
	counts map[PublicKey]int // good signatures of keys without a table
}

// A table takes the time of two verifications to make and saves half of each.
const worthTable = 5

// NewVerifier returns a Verifier with tables for up to maxKeys keys, each of
// about 8 KB. When there are more, those to forget are picked at random, which
// nobody can use to push out a chosen key.
func NewVerifier(maxKeys int) *Verifier {
	return &Verifier{
		max:    maxKeys,
		tables: make(map[PublicKey]*secp.Key),
		counts: make(map[PublicKey]int),
	}
}

// Verify returns what e.Verify would.
func (v *Verifier) Verify(e *Event) error {
	if e.hash() != e.ID {
		return ErrID
	}
	return v.VerifySignature(e)
}

// VerifySignature verifies the signature of an event whose id has been checked,
// which the signature is of. It returns nil or [ErrSignature].
func (v *Verifier) VerifySignature(e *Event) error {
	v.mu.Lock()
	table := v.tables[e.PubKey]
	v.mu.Unlock()
	if table != nil {
		if !table.Verify(&e.ID, &e.Sig) {
			return ErrSignature
		}
		return nil
	}
	if !secp.Verify((*[32]byte)(&e.PubKey), &e.ID, &e.Sig) {
		return ErrSignature
	}
	v.count(e.PubKey)
	return nil
}

// count notes a good signature by a key without a table. Counting only those,
// it takes the key's owner to make it spend anything.
func (v *Verifier) count(pk PublicKey) {
	v.mu.Lock()
	n := v.counts[pk] + 1
	if n == 1 && len(v.counts) >= v.max {
		forgetOne(v.counts)
	}
	v.counts[pk] = n
	if n == worthTable {
		delete(v.counts, pk)
	}
	v.mu.Unlock()
	if n != worthTable || v.max <= 0 {
		return
	}
	table := secp.NewKey((*[32]byte)(&pk))
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.tables) >= v.max {
		forgetOne(v.tables)
	}
	v.tables[pk] = table
}

// forgetOne deletes one entry, which one the map's random iteration decides.
func forgetOne[V any](m map[PublicKey]V) {
	for pk := range m {
		delete(m, pk)
		return
	}
}
