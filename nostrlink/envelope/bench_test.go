package envelope

import (
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip44"
)

// The benchmarks do each job twice: here and by go-nostr, from the same input
// to the same result.

type pair struct {
	author, peer SecretKey
	authorHex    string
	key          ConversationKey
	plain        []byte
	event        []byte
}

func newPair(tb testing.TB, size int) *pair {
	tb.Helper()
	p := &pair{plain: make([]byte, size)}
	for i := range p.plain {
		p.plain[i] = byte(i * 7)
	}
	var err error
	if p.author, err = GenerateSecretKey(); err != nil {
		tb.Fatal(err)
	}
	if p.peer, err = GenerateSecretKey(); err != nil {
		tb.Fatal(err)
	}
	d := p.author.secret().d.Bytes()
	p.authorHex = hex.EncodeToString(d[:])
	if p.key, err = Conversation(p.author, p.peer.Public()); err != nil {
		tb.Fatal(err)
	}
	s := NewSealer(p.author, p.peer.Public(), p.key)
	if p.event, _, err = s.Seal(nil, p.plain, time.Now()); err != nil {
		tb.Fatal(err)
	}
	return p
}

func benchmark(b *testing.B, size int, name string, job func() error) {
	b.Run(fmt.Sprintf("size=%d/%s", size, name), func(b *testing.B) {
		b.SetBytes(int64(size))
		b.ReportAllocs()
		for b.Loop() {
			if err := job(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

var sizes = []int{32, 1024, MaxPlaintext}

func BenchmarkSeal(b *testing.B) {
	for _, size := range sizes {
		p := newPair(b, size)
		s := NewSealer(p.author, p.peer.Public(), p.key)
		now := time.Now()
		var buf []byte
		benchmark(b, size, "envelope", func() (err error) {
			buf, _, err = s.Seal(buf[:0], p.plain, now)
			return err
		})
		to := p.peer.Public().Hex()
		benchmark(b, size, "go-nostr", func() error {
			content, err := nip44.Encrypt(string(p.plain), *p.key.bytes())
			if err != nil {
				return err
			}
			ev := nostr.Event{
				Kind:      KindNWS,
				CreatedAt: nostr.Timestamp(now.Unix()),
				Tags:      nostr.Tags{{"p", to}},
				Content:   content,
			}
			if err := ev.Sign(p.authorHex); err != nil {
				return err
			}
			_, err = ev.MarshalJSON()
			return err
		})
	}
}

// BenchmarkOpen parses, checks id and signature, and decrypts. A Verifier has
// seen the author before.
func BenchmarkOpen(b *testing.B) {
	for _, size := range sizes {
		p := newPair(b, size)
		var buf []byte
		open := func(verify func(*Event) error) func() error {
			return func() error {
				ev, err := ParseEvent(p.event)
				if err != nil {
					return err
				}
				if err := verify(&ev); err != nil {
					return err
				}
				buf, err = Open(buf[:0], ev.Content, p.key)
				return err
			}
		}
		benchmark(b, size, "envelope", open((*Event).Verify))
		benchmark(b, size, "envelope-verifier", open(NewVerifier(1).Verify))
		benchmark(b, size, "go-nostr", func() error {
			ev, err := verifyByNostr(p.event)
			if err != nil {
				return err
			}
			_, err = nip44.Decrypt(ev.Content, *p.key.bytes())
			return err
		})
	}
}

// BenchmarkOpenUnverified parses and decrypts, as for an established session's
// data, whose MAC and packet header are checked instead.
func BenchmarkOpenUnverified(b *testing.B) {
	for _, size := range sizes {
		p := newPair(b, size)
		var buf []byte
		benchmark(b, size, "envelope", func() error {
			ev, err := ParseEvent(p.event)
			if err != nil {
				return err
			}
			buf, err = Open(buf[:0], ev.Content, p.key)
			return err
		})
		benchmark(b, size, "go-nostr", func() error {
			var ev nostr.Event
			if err := ev.UnmarshalJSON(p.event); err != nil {
				return err
			}
			_, err := nip44.Decrypt(ev.Content, *p.key.bytes())
			return err
		})
	}
}

// BenchmarkVerify is a relay's work: parse, check id and signature.
func BenchmarkVerify(b *testing.B) {
	for _, size := range sizes {
		p := newPair(b, size)
		verify := func(verify func(*Event) error) func() error {
			return func() error {
				ev, err := ParseEvent(p.event)
				if err != nil {
					return err
				}
				return verify(&ev)
			}
		}
		benchmark(b, size, "envelope", verify((*Event).Verify))
		benchmark(b, size, "envelope-verifier", verify(NewVerifier(1).Verify))
		v, waiting := NewVerifier(1), (*Event)(nil)
		benchmark(b, size, "envelope-both", verify(func(ev *Event) error {
			if waiting == nil {
				waiting = ev
				return nil
			}
			errA, errB := CheckBothIDs(ev, waiting)
			err := errors.Join(errA, errB, v.VerifySignature(ev), v.VerifySignature(waiting))
			waiting = nil
			return err
		}))
		benchmark(b, size, "go-nostr", func() error {
			_, err := verifyByNostr(p.event)
			return err
		})
	}
}

func BenchmarkParse(b *testing.B) {
	p := newPair(b, MaxPlaintext)
	benchmark(b, MaxPlaintext, "envelope", func() error {
		_, err := ParseEvent(p.event)
		return err
	})
	benchmark(b, MaxPlaintext, "go-nostr", func() error {
		var ev nostr.Event
		return ev.UnmarshalJSON(p.event)
	})
}

func BenchmarkConversation(b *testing.B) {
	p := newPair(b, 1)
	to := p.peer.Public()
	benchmark(b, 32, "envelope", func() error {
		_, err := Conversation(p.author, to)
		return err
	})
	benchmark(b, 32, "go-nostr", func() error {
		_, err := nip44.GenerateConversationKey(to.Hex(), p.authorHex)
		return err
	})
}

func verifyByNostr(raw []byte) (ev nostr.Event, err error) {
	if err := ev.UnmarshalJSON(raw); err != nil {
		return ev, err
	}
	if !ev.CheckID() {
		return ev, ErrID
	}
	if ok, err := ev.CheckSignature(); err != nil || !ok {
		return ev, ErrSignature
	}
	return ev, nil
}
