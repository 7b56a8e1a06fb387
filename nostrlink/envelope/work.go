package envelope

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strconv"
	"time"
)

// MaxWork is the most work that SealWork does: some sixteen million hashes, a
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

	const none = "0000000000000000"
	t := Template{Kind: KindNWS, CreatedAt: now, Tags: [][]string{{"nonce", none, strconv.Itoa(work)}}}
	var w writer
	if err := w.begin(dst, s.author, &t, &s.to, base64.StdEncoding.EncodedLen(len(payload))); err != nil {
		return dst, id, err
	}
	id = w.closeApart(&keys, payload)
	at := w.tags + bytes.Index(w.buf[w.tags:w.content], []byte(none))
	var count [8]byte
	for try := uint64(0); Work(id) < work; try++ {
		if try%1024 == 0 && ctx.Err() != nil {
			return dst, id, ctx.Err()
		}
		binary.BigEndian.PutUint64(count[:], try)
		hex.Encode(w.buf[at:], count[:])
		id = w.hash()
	}
	return w.sign(&id), id, nil
}
