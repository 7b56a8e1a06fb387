package relaytest

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// An Attack is what a hostile relay does about an event that passes: it makes
// up others, which are delivered before or after it. It is called for one event
// at a time.
type Attack func(e Passing) (before, after []Fake)

// Passing is an event as an attacker sees it, with its first p tag.
type Passing struct {
	ID                [32]byte
	Author, Recipient envelope.PublicKey
	CreatedAt         int64
	Kind              int
	Content           string
	Raw               []byte // the whole; it must not be changed
}

// Fake is an event that the relay delivers on its own account: to every
// subscription that asks for events to a key, whatever the event itself says.
type Fake struct {
	To    envelope.PublicKey
	Event []byte
}

// Forge makes a fake to the recipient of an event that is e but for what change
// does to it. Its id is the right one unless change sets it; its signature is
// not.
func (e Passing) Forge(change func(*Passing)) Fake {
	genuine := e.ID
	change(&e)
	if e.ID == genuine {
		e.ID = sha256.Sum256(fmt.Appendf(nil, `[0,"%x",%d,%d,[["p","%x"]],"%s"]`,
			e.Author[:], e.CreatedAt, e.Kind, e.Recipient[:], e.Content))
	}
	return e.withID()
}

// withID is Forge for an id that is left as it is.
func (e Passing) withID() Fake {
	return Fake{e.Recipient, fmt.Appendf(nil, `{"id":"%x","pubkey":"%x","created_at":%d,"kind":%d,"tags":[["p","%x"]],"content":"%s","sig":"%s"}`,
		e.ID, e.Author[:], e.CreatedAt, e.Kind, e.Recipient[:], e.Content, strings.Repeat("5a", 64))}
}

// Together does several attacks at once.
func Together(attacks ...Attack) Attack {
	return func(e Passing) (before, after []Fake) {
		for _, a := range attacks {
			b, c := a(e)
			before, after = append(before, b...), append(after, c...)
		}
		return before, after
	}
}

// Reflect sends every event back to its author, as if the recipient had said
// the same.
func Reflect() Attack {
	return func(e Passing) (before, after []Fake) {
		back := e.Forge(func(f *Passing) { f.Author, f.Recipient = e.Recipient, e.Author })
		return []Fake{back}, []Fake{{e.Author, e.Raw}}
	}
}

// remembered is how many events an attack keeps.
const remembered = 64

// Replay repeats every event at once and some later ones again: as they were,
// with another time and id, and signed by a key of the relay.
func Replay(seed uint64) Attack {
	chance := rand.New(rand.NewPCG(seed, 1))
	own, err := envelope.GenerateSecretKey()
	if err != nil {
		panic(err) // it has no reason to
	}
	var seen []Passing
	later := func(f *Passing) { f.CreatedAt++ }
	return func(e Passing) (before, after []Fake) {
		if len(seen) < remembered {
			seen = append(seen, e)
		} else {
			seen[chance.IntN(remembered)] = e
		}
		old := seen[chance.IntN(len(seen))]
		signed, _, err := envelope.Sign(nil, own, envelope.Template{
			Kind: e.Kind, CreatedAt: time.Unix(e.CreatedAt, 0), Content: []byte(e.Content), Tags: [][]string{{"p", e.Recipient.Hex()}},
		})
		if err != nil {
			panic(err) // the event had all of these
		}
		before = []Fake{{e.Recipient, old.Raw}}
		after = []Fake{{e.Recipient, e.Raw}, e.Forge(later), {e.Recipient, signed}, old.Forge(later), {old.Recipient, old.Raw}}
		return before, after
	}
}

// Transplant puts the content of events into others: of another session, of the
// other direction, of another kind, of a handshake into a session and the other
// way round. What goes from one key to another is a line; the newest content of
// every line goes into every event of the others.
func Transplant() Attack {
	type line struct{ from, to envelope.PublicKey }
	newest := map[line]Passing{}
	return func(e Passing) (before, after []Fake) {
		for l, other := range newest {
			if l != (line{e.Author, e.Recipient}) {
				before = append(before, e.Forge(func(f *Passing) { f.Content = other.Content }))
				after = append(after, e.Forge(func(f *Passing) { f.Author = other.Author }),
					other.Forge(func(f *Passing) { f.Content = e.Content }))
			}
		}
		for _, kind := range []int{1, 4, 21059, 38333} {
			before = append(before, e.Forge(func(f *Passing) { f.Kind = kind }))
		}
		if len(newest) < remembered/8 {
			newest[line{e.Author, e.Recipient}] = e
		}
		return before, after
	}
}

// ForgeID delivers events with the ids of genuine ones before these, with other
// contents: to be taken for what they are not, or to have the genuine ones taken
// for repetitions.
func ForgeID(seed uint64) Attack {
	chance := rand.New(rand.NewPCG(seed, 2))
	return func(e Passing) (before, after []Fake) {
		garbage, flipped := e, e
		garbage.Content = noise(chance, len(e.Content)*3/4)
		at := 2 + chance.IntN(max(1, len(e.Content)-4))
		other := byte('A')
		if e.Content[at] == other {
			other = 'B'
		}
		flipped.Content = e.Content[:at] + string(other) + e.Content[at+1:]
		return []Fake{garbage.withID(), flipped.withID()}, nil
	}
}

// Invent makes up events for both ends of every event: in the peer's name and
// in a stranger's, with contents that look like ciphertext and with some that
// do not.
func Invent(seed uint64) Attack {
	chance := rand.New(rand.NewPCG(seed, 3))
	return func(e Passing) (before, after []Fake) {
		for _, content := range []string{
			noise(chance, 99), noise(chance, 10+chance.IntN(5000)), "", "AA==", "no base64 at all",
			`{\"type\":\"DATA\",\"key\":\"k\"}`, strings.Repeat("A", 60000),
		} {
			var stranger envelope.PublicKey
			for i := range stranger {
				stranger[i] = byte(chance.Uint32())
			}
			after = append(after,
				e.Forge(func(f *Passing) { f.Content = content }),
				e.Forge(func(f *Passing) { f.Content, f.Author, f.Recipient = content, e.Recipient, e.Author }),
				e.Forge(func(f *Passing) { f.Content, f.Author = content, stranger }))
		}
		return nil, after
	}
}

// noise is what n bytes of NIP-44 look like from outside.
func noise(chance *rand.Rand, n int) string {
	b := make([]byte, max(n, 1))
	for i := range b {
		b[i] = byte(chance.Uint32())
	}
	b[0] = 2 // the version
	return base64.StdEncoding.EncodeToString(b)
}
