package compat

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Keys opens and seals the messages of one key, and remembers what that key
// shares with its peers, which costs to compute. It may be used concurrently.
type Keys struct {
	own      envelope.SecretKey
	max      int
	verifier *envelope.Verifier

	mu    sync.Mutex
	peers map[envelope.PublicKey]*peerKeys
}

// peerKeys are what is shared with one peer.
type peerKeys struct {
	conversation envelope.ConversationKey

	mu    sync.Mutex // of the rest
	nip04 *envelope.NIP04Key
	seal  *envelope.Sealer
}

// NewKeys returns the Keys of own, which remember up to maxPeers peers.
func NewKeys(own envelope.SecretKey, maxPeers int) *Keys {
	return &Keys{
		own: own, max: max(maxPeers, 1),
		verifier: envelope.NewVerifier(max(maxPeers/16, 1)),
		peers:    make(map[envelope.PublicKey]*peerKeys),
	}
}

// errKind is for events that hold no message.
var errKind = errors.New("compat: not an event of NWS")

// Open verifies an event, decrypts it, by NIP-44 or NIP-04, and reads the
// message in it, of whatever type that is: HELLO and its like among them.
// Nothing in the result refers to ev.
func (k *Keys) Open(ev *envelope.Event) (Incoming, error) {
	if ev.Kind != envelope.KindNWS {
		return Incoming{}, errKind
	}
	if err := k.verifier.Verify(ev); err != nil {
		return Incoming{}, err
	}
	plain, err := k.decrypt(ev)
	if err != nil {
		return Incoming{}, err
	}
	m, err := wire.ParseMessage(plain)
	if err != nil {
		return Incoming{}, err
	}
	return Incoming{From: ev.PubKey, ID: ev.ID, CreatedAt: ev.CreatedAt, Message: m}, nil
}

func (k *Keys) decrypt(ev *envelope.Event) ([]byte, error) {
	p, err := k.peer(ev.PubKey)
	if err != nil {
		return nil, err
	}
	if !envelope.IsNIP04(ev.Content) {
		return envelope.Open(nil, ev.Content, p.conversation)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nip04 == nil {
		key, err := envelope.ConversationNIP04(k.own, ev.PubKey)
		if err != nil {
			return nil, err
		}
		p.nip04 = &key
	}
	return envelope.OpenNIP04(nil, ev.Content, *p.nip04)
}

// Seal makes a complete event of plaintext, encrypted by NIP-44 for the peer.
func (k *Keys) Seal(to envelope.PublicKey, plaintext []byte, now time.Time) (event []byte, id [32]byte, err error) {
	p, err := k.peer(to)
	if err != nil {
		return nil, id, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seal == nil {
		p.seal = envelope.NewSealer(k.own, to, p.conversation)
	}
	return p.seal.Seal(nil, plaintext, now)
}

// peer returns what is shared with a peer. When there are too many, those to
// forget are picked at random, which nobody can use to push out a chosen one.
func (k *Keys) peer(peer envelope.PublicKey) (*peerKeys, error) {
	k.mu.Lock()
	p := k.peers[peer]
	k.mu.Unlock()
	if p != nil {
		return p, nil
	}
	conversation, err := envelope.Conversation(k.own, peer)
	if err != nil {
		return nil, fmt.Errorf("compat: %w", err)
	}
	p = &peerKeys{conversation: conversation}
	k.mu.Lock()
	defer k.mu.Unlock()
	for other := range k.peers { // in random order
		if len(k.peers) < k.max {
			break
		}
		delete(k.peers, other)
	}
	k.peers[peer] = p
	return p, nil
}
