package nostrlink

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// helloLifetime is how far a HELLO's clock may be from the exit's, and how
// long the exit remembers its nonce.
const helloLifetime = 60 * time.Second

// secrets is what a handshake leaves behind.
type secrets struct {
	id    [16]byte
	key   envelope.ConversationKey
	local envelope.SecretKey // authors our events
	peer  envelope.PublicKey // authors theirs
}

// transcript is everything that both ends must have seen alike.
type transcript struct {
	version       int
	exit          envelope.PublicKey // the exit's identity
	hello         envelope.PublicKey // the key the HELLO came from
	entrySession  wire.PublicKey
	exitSession   wire.PublicKey
	entry, answer wire.Nonce
}

func (t *transcript) sum() [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "nws session %d\n", t.version)
	for _, part := range [][]byte{
		t.exit[:], t.hello[:], t.entrySession[:], t.exitSession[:], t.entry[:], t.answer[:],
	} {
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}

// derive computes the session's secrets. local is this end's session key, peer
// the other's, and identity the conversation between the entry's session key
// and the exit's identity key: both must match, so that neither a leaked
// identity key nor a stolen session key alone opens anything.
func (t *transcript) derive(local envelope.SecretKey, peer wire.PublicKey, identity envelope.ConversationKey) (secrets, error) {
	ephemeral, err := envelope.Conversation(local, envelope.PublicKey(peer))
	if err != nil {
		return secrets{}, err
	}
	sum := t.sum()
	id := sha256.Sum256(append([]byte("nws session id\n"), sum[:]...))
	return secrets{
		id:    [16]byte(id[:16]),
		key:   envelope.Combine(ephemeral, identity, sum[:]),
		local: local,
		peer:  envelope.PublicKey(peer),
	}, nil
}

// wishes are what an entry tells the exit about itself.
type wishes struct {
	Credentials
	agent     string
	relays    []string // it can use, as relayURL writes them
	spread    Spread   // of what the exit sends
	duplicate bool     // small packets of the exit
	direct    []string // addresses where we wait for a connection of the exit
}

// greeting is the entry's half of a handshake with one exit. It has no I/O, and
// nothing of it changes but work.
type greeting struct {
	wishes
	exit    envelope.PublicKey
	hello   envelope.SecretKey
	session envelope.SecretKey
	nonce   wire.Nonce
	key     envelope.ConversationKey // hello key × exit identity

	work effort // that the exit has asked for
}

func newGreeting(exit envelope.PublicKey, w wishes) (*greeting, error) {
	hello, err := envelope.GenerateSecretKey()
	if err != nil {
		return nil, err
	}
	session, err := envelope.GenerateSecretKey()
	if err != nil {
		return nil, err
	}
	key, err := envelope.Conversation(hello, exit)
	if err != nil {
		return nil, fmt.Errorf("exit key %s: %w", exit.NPub(), err)
	}
	g := &greeting{wishes: w, exit: exit, hello: hello, session: session, key: key, work: newEffort()}
	rand.Read(g.nonce[:])
	return g, nil
}

// event returns a HELLO, signed and sealed for the exit. Every call makes a
// new event of the same greeting, so that a lost one can be sent again. It takes
// long if the exit asks for work; then ctx ends it.
func (g *greeting) event(ctx context.Context, now time.Time) (event []byte, id [32]byte, err error) {
	hello := &wire.Hello{
		Versions:     []int{wire.Version},
		Nonce:        g.nonce,
		Time:         now.Unix(),
		SessionKey:   wire.PublicKey(g.session.Public()),
		MaxPacket:    localLimits.MaxPacket,
		Window:       localLimits.Window,
		StreamWindow: localLimits.StreamWindow,
		Agent:        g.agent,
		Relays:       g.relays,
		Spread:       spreadWord(g.spread),
		Duplicate:    g.duplicate,
		Direct:       g.direct,
		Token:        g.Token,
	}
	if g.Identity != nil {
		if hello.Identity, err = g.prove(*g.Identity, now); err != nil {
			return nil, id, err
		}
	}
	plain, err := wire.AppendMessage(nil, &wire.Message{Type: wire.TypeHello, Hello: hello})
	if err != nil {
		return nil, id, err
	}
	return envelope.NewSealer(g.hello, g.exit, g.key).SealWork(ctx, nil, plain, now, g.work.bits())
}

// doesWork takes up what a refusal asks for, and reports whether it is only that:
// then the greeting goes on. What is refused so had less work than is asked for.
// If that is no more than is done by now, an earlier greeting is meant, or the
// same one over another relay, and those on their way are to be waited for.
func (g *greeting) doesWork(err error) bool {
	var no *RefusedError
	if !errors.As(err, &no) || no.Work <= 0 || no.Work > mostWork {
		return false
	}
	g.work.raise(no.Work)
	return true
}

// errNotOurs marks an event that is no answer to this greeting. It is ignored:
// anybody can send events to a public key.
var errNotOurs = errors.New("not an answer to this greeting")

// RefusedError is an exit's refusal of a session. It unwraps to the *wire.Error
// with its code.
type RefusedError struct {
	Err  error
	Work int // that the exit wants to see first
}

func (e *RefusedError) Error() string { return "the exit refused: " + e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// answer reads an event sent to the hello key. It returns errNotOurs for what
// is not from the exit, and a *RefusedError when the exit said no.
func (g *greeting) answer(ev *envelope.Event) (secrets, *wire.Welcome, error) {
	if ev.PubKey != g.exit || ev.Verify() != nil {
		return secrets{}, nil, errNotOurs
	}
	plain, err := envelope.Open(nil, ev.Content, g.key)
	if err != nil {
		return secrets{}, nil, errNotOurs
	}
	m, err := wire.ParseMessage(plain)
	if err != nil {
		return secrets{}, nil, errNotOurs
	}
	switch {
	case m.Refused != nil && m.Refused.HelloNonce == g.nonce:
		return secrets{}, nil, &RefusedError{m.Refused.Err(), m.Refused.Work}
	case m.Welcome != nil && m.Welcome.HelloNonce == g.nonce:
		s, err := g.accept(m.Welcome)
		return s, m.Welcome, err
	}
	return secrets{}, nil, errNotOurs
}

func (g *greeting) accept(w *wire.Welcome) (secrets, error) {
	if w.Version != wire.Version {
		return secrets{}, fmt.Errorf("the exit chose session version %d, which this program did not offer: update one of the two", w.Version)
	}
	t := transcript{
		version: w.Version, exit: g.exit, hello: g.hello.Public(),
		entrySession: wire.PublicKey(g.session.Public()), exitSession: w.SessionKey,
		entry: g.nonce, answer: w.Nonce,
	}
	identity, err := envelope.Conversation(g.session, g.exit)
	if err != nil {
		return secrets{}, err
	}
	return t.derive(g.session, w.SessionKey, identity)
}

// doorman is the exit's half of the handshake. It has no I/O and no clock. Only
// admit has state; the rest may be called concurrently.
type doorman struct {
	identity envelope.SecretKey
	seen     map[wire.Nonce]*admission
	max      int // nonces remembered

	staleSince time.Time // when stale HELLOs were counted from
	stale      int
}

// admission is one entry that was let in.
type admission struct {
	secrets
	author   envelope.PublicKey // the hello key
	client   Client
	hello    *wire.Hello
	helloKey envelope.ConversationKey // hello key × exit identity
	nonce    wire.Nonce               // ours
	answers  int                      // WELCOMEs sent for it
	expires  time.Time
	visit    *visit // the listener's
}

// maxAnswers bounds how often one greeting is answered: an entry repeats a
// HELLO when the answer was lost, and so may an attacker.
const maxAnswers = 8

func newDoorman(identity envelope.SecretKey, maxRemembered int) *doorman {
	return &doorman{identity: identity, seen: make(map[wire.Nonce]*admission), max: maxRemembered}
}

// Why a HELLO was not taken, for the books.
var (
	errReplayed = errors.New("replayed HELLO")
	errStale    = errors.New("stale HELLO, like too many before")
)

// read takes in a HELLO, whose author is proven. It touches no state and may be
// called concurrently. Its errors are not worth an answer: what is not a proper
// HELLO is noise.
func (d *doorman) read(author envelope.PublicKey, h *wire.Hello) (*admission, error) {
	key, err := envelope.Conversation(d.identity, author)
	if err != nil {
		return nil, err
	}
	a := &admission{author: author, client: Client{Key: author}, hello: h, helloKey: key, answers: 1}
	if h.Identity != "" {
		if a.client.Key, err = proven(d.identity.Public(), author, h); err != nil {
			return nil, err
		}
		a.client.Proven = true
	}
	if !slices.Contains(h.Versions, wire.Version) {
		return a, nil // admit refuses it, and its key may mean nothing to us
	}
	a.secrets, err = d.derive(a)
	return a, err
}

// admit decides about a HELLO that was read. It returns the admission to
// answer and whether it is new: a repeated HELLO yields the first one's, and
// opens no second session. A *refusal is to be answered too; every other error
// is not.
func (d *doorman) admit(a *admission, now time.Time) (_ *admission, fresh bool, err error) {
	h := a.hello
	if off := now.Sub(time.Unix(h.Time, 0)).Abs(); off > helloLifetime {
		if !d.mayAnswerStale(now) {
			return nil, false, errStale
		}
		return nil, false, &refusal{to: a, why: refusedStale, code: wire.CodeDenied,
			text: fmt.Sprintf("your clock differs from mine by %v: set it and try again", off.Round(time.Second))}
	}
	if old := d.seen[h.Nonce]; old != nil {
		if old.author != a.author || old.answers >= maxAnswers {
			return nil, false, errReplayed
		}
		old.answers++
		return old, false, nil
	}
	if !slices.Contains(h.Versions, wire.Version) {
		return nil, false, &refusal{to: a, why: refusedVersion, code: wire.CodeUnsupported,
			text: fmt.Sprintf("I speak session version %d, you offer %v: update one of the two", wire.Version, h.Versions)}
	}
	d.expire(now)
	if len(d.seen) >= d.max {
		return nil, false, &refusal{to: a, why: refusedBusy, code: wire.CodeBusy, text: "too many sessions are being opened: try again in a minute"}
	}
	a.expires = now.Add(2 * helloLifetime)
	d.seen[h.Nonce] = a
	return a, true, nil
}

// maxStaleAnswers is how many stale HELLOs get an answer in a minute. A user
// whose clock is wrong should hear of it, but anybody can send old ones again.
const maxStaleAnswers = 30

func (d *doorman) mayAnswerStale(now time.Time) bool {
	if now.Sub(d.staleSince).Abs() >= time.Minute {
		d.staleSince, d.stale = now, 0
	}
	d.stale++
	return d.stale <= maxStaleAnswers
}

func (d *doorman) derive(a *admission) (secrets, error) {
	local, err := envelope.GenerateSecretKey()
	if err != nil {
		return secrets{}, err
	}
	rand.Read(a.nonce[:])
	identity, err := envelope.Conversation(d.identity, envelope.PublicKey(a.hello.SessionKey))
	if err != nil {
		return secrets{}, err
	}
	t := transcript{
		version: wire.Version, exit: d.identity.Public(), hello: a.author,
		entrySession: a.hello.SessionKey, exitSession: wire.PublicKey(local.Public()),
		entry: a.hello.Nonce, answer: a.nonce,
	}
	return t.derive(local, a.hello.SessionKey, identity)
}

func (d *doorman) expire(now time.Time) {
	for nonce, a := range d.seen {
		if now.After(a.expires) {
			delete(d.seen, nonce)
		}
	}
}

// welcome returns the answer to an admission, signed by the identity key.
// relays are those where we listen for the session, offers the addresses where
// we wait for a direct connection.
func (d *doorman) welcome(a *admission, now time.Time, agent string, relays, offers []string) (event []byte, id [32]byte, err error) {
	m := wire.Message{Type: wire.TypeWelcome, Welcome: &wire.Welcome{
		Version:      wire.Version,
		HelloNonce:   a.hello.Nonce,
		Nonce:        a.nonce,
		Time:         now.Unix(),
		SessionKey:   wire.PublicKey(a.local.Public()),
		MaxPacket:    localLimits.MaxPacket,
		Window:       localLimits.Window,
		StreamWindow: localLimits.StreamWindow,
		MaxStreams:   localLimits.MaxStreams,
		Agent:        agent,
		Relays:       relays,
		Direct:       offers,
	}}
	return d.seal(&m, a.author, a.helloKey, now)
}

// refusal is a HELLO that gets no session but an answer.
type refusal struct {
	to   *admission
	why  refusalReason
	code wire.Code
	text string
	work int // that would have been enough
}

type refusalReason int

const (
	refusedStale refusalReason = iota
	refusedVersion
	refusedBusy
	refusedGuest // by the operator's rules about who is let in
)

func (r *refusal) Error() string { return r.text }

// refused returns the answer to a refusal, signed by the identity key.
func (d *doorman) refused(r *refusal, now time.Time) (event []byte, id [32]byte, err error) {
	m := wire.Message{Type: wire.TypeRefused, Refused: &wire.Refused{
		HelloNonce: r.to.hello.Nonce, Code: r.code, Text: r.text, Time: now.Unix(), Work: r.work,
	}}
	return d.seal(&m, r.to.author, r.to.helloKey, now)
}

func (d *doorman) seal(m *wire.Message, to envelope.PublicKey, key envelope.ConversationKey, now time.Time) (event []byte, id [32]byte, err error) {
	plain, err := wire.AppendMessage(nil, m)
	if err != nil {
		return nil, id, err
	}
	return envelope.NewSealer(d.identity, to, key).Seal(nil, plain, now)
}
