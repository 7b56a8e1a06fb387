package chacha

import (
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

var wide = cpu.X86.HasAVX512F

// chunk is sixteen blocks.
const chunk = 16 * 64

func xorWide(text []byte, key *[32]byte, nonce *[12]byte) {
	s := [16]uint32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574} // "expand 32-byte k"
	for i := range 8 {
		s[4+i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	for i := range 3 {
		s[13+i] = binary.LittleEndian.Uint32(nonce[4*i:])
	}
	if n := len(text) / chunk; n > 0 {
		xorChunks(&s, &text[0], n)
		text = text[n*chunk:]
	}
	if len(text) > 0 {
		var last [chunk]byte
		copy(last[:], text)
		xorChunks(&s, &last[0], 1)
		copy(text, last[:])
		clear(last[:])
	}
	clear(s[:])
}

// xorChunks encrypts n chunks from p on, at least one, and moves the state's
// counter on.
//
//go:noescape
func xorChunks(state *[16]uint32, p *byte, n int)
