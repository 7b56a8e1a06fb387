package envelope

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"time"
)

// MaxWork is the most work that SealWork and Rework do: some sixteen million hashes, a
// minute or so.
const MaxWork = 24

// Work is the number of leading zero bits of an event's id (NIP-13). It means
// something once the id is known to be the event's.
func Work(id [32]byte) int {
	n := 0
	for _, b := range id {
		if b != 0 {
			return n + bits.LeadingZeros8(b)
		}
		n += 8
	}
	return n
}

// SealWork is Seal for a receiver who wants work: a nonce tag is found with which
// the id has at least the given number of leading zero bits (NIP-13). It takes
// time, and ends early with ctx's error.
func (s *Sealer) SealWork(ctx context.Context, dst, plaintext []byte, now time.Time, work int) (event []byte, id [32]byte, err error) {
	if work <= 0 {
		return s.Seal(dst, plaintext, now)
	}
	key := s.key.bytes()
	switch n := len(plaintext); {
	case work > MaxWork:
		return dst, id, fmt.Errorf("envelope: seal: %d bits of work are more than the %d that are done", work, MaxWork)
	case key == nil:
		return dst, id, errNoKey
	case n == 0 || n > MaxPlaintext:
		return dst, id, fmt.Errorf("envelope: seal: %d bytes: an event takes 1 to %d", n, MaxPlaintext)
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	payload := make([]byte, payloadLen(len(plaintext)))
	var keys messageKeys
	keys.encrypt(payload, plaintext, key, &nonce)

	t := Template{Kind: KindNWS, CreatedAt: now, Tags: [][]string{noWork(work)}}
	var w writer
	if err := w.begin(dst, s.author, &t, &s.to, base64.StdEncoding.EncodedLen(len(payload))); err != nil {
		return dst, id, err
	}
	id = w.closeApart(&keys, payload)
	if id, err = w.labour(ctx, id, work); err != nil {
		return dst, id, err
	}
	return w.sign(&id), id, nil
}

// Rework returns an event of the author's anew, with a nonce tag by which its id
// has at least the given number of leading zero bits (NIP-13). It takes time, and
// ends early with ctx's error.
func Rework(ctx context.Context, author SecretKey, raw []byte, work int) (event []byte, id [32]byte, err error) {
	old, err := ParseEvent(raw)
	switch {
	case err != nil:
		return nil, id, err
	case old.PubKey != author.Public():
		return nil, id, errors.New("envelope: work: the event is another author's")
	case work > MaxWork:
		return nil, id, fmt.Errorf("envelope: work: %d bits are more than the %d that are done", work, MaxWork)
	}
	t := Template{Kind: old.Kind, CreatedAt: time.Unix(old.CreatedAt, 0), Content: old.Content}
	for _, tag := range old.TagStrings() {
		if len(tag) == 0 || tag[0] != "nonce" {
			t.Tags = append(t.Tags, tag)
		}
	}
	t.Tags = append(t.Tags, noWork(work))
	var w writer
	if err := w.begin(nil, author, &t, nil, len(t.Content)); err != nil {
		return nil, id, err
	}
	w.buf = appendEscaped(w.buf, t.Content)
	if id, err = w.labour(ctx, w.close(), work); err != nil {
		return nil, id, err
	}
	return w.sign(&id), id, nil
}

const noNonce = "0000000000000000"

// noWork is the tag that labour changes. It must be the last one.
func noWork(work int) []string { return []string{"nonce", noNonce, strconv.Itoa(work)} }

// labour finds a nonce for an event that is closed, and returns the id.
func (w *writer) labour(ctx context.Context, id [32]byte, work int) ([32]byte, error) {
	at := w.tags + bytes.LastIndex(w.buf[w.tags:w.content], []byte(noNonce))
	var count [8]byte
	for try := uint64(0); Work(id) < work; try++ {
		if try%1024 == 0 && ctx.Err() != nil {
			return id, ctx.Err()
		}
		binary.BigEndian.PutUint64(count[:], try)
		hex.Encode(w.buf[at:], count[:])
		id = w.hash()
	}
	return id, nil
}
