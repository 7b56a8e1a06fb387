#include "textflag.h"

// The round constants of SHA-256.
DATA k<>+0x00(SB)/8, $0x71374491428a2f98
DATA k<>+0x08(SB)/8, $0xe9b5dba5b5c0fbcf
DATA k<>+0x10(SB)/8, $0x59f111f13956c25b
DATA k<>+0x18(SB)/8, $0xab1c5ed5923f82a4
DATA k<>+0x20(SB)/8, $0x12835b01d807aa98
DATA k<>+0x28(SB)/8, $0x550c7dc3243185be
DATA k<>+0x30(SB)/8, $0x80deb1fe72be5d74
DATA k<>+0x38(SB)/8, $0xc19bf1749bdc06a7
DATA k<>+0x40(SB)/8, $0xefbe4786e49b69c1
DATA k<>+0x48(SB)/8, $0x240ca1cc0fc19dc6
DATA k<>+0x50(SB)/8, $0x4a7484aa2de92c6f
DATA k<>+0x58(SB)/8, $0x76f988da5cb0a9dc
DATA k<>+0x60(SB)/8, $0xa831c66d983e5152
DATA k<>+0x68(SB)/8, $0xbf597fc7b00327c8
DATA k<>+0x70(SB)/8, $0xd5a79147c6e00bf3
DATA k<>+0x78(SB)/8, $0x1429296706ca6351
DATA k<>+0x80(SB)/8, $0x2e1b213827b70a85
DATA k<>+0x88(SB)/8, $0x53380d134d2c6dfc
DATA k<>+0x90(SB)/8, $0x766a0abb650a7354
DATA k<>+0x98(SB)/8, $0x92722c8581c2c92e
DATA k<>+0xa0(SB)/8, $0xa81a664ba2bfe8a1
DATA k<>+0xa8(SB)/8, $0xc76c51a3c24b8b70
DATA k<>+0xb0(SB)/8, $0xd6990624d192e819
DATA k<>+0xb8(SB)/8, $0x106aa070f40e3585
DATA k<>+0xc0(SB)/8, $0x1e376c0819a4c116
DATA k<>+0xc8(SB)/8, $0x34b0bcb52748774c
DATA k<>+0xd0(SB)/8, $0x4ed8aa4a391c0cb3
DATA k<>+0xd8(SB)/8, $0x682e6ff35b9cca4f
DATA k<>+0xe0(SB)/8, $0x78a5636f748f82ee
DATA k<>+0xe8(SB)/8, $0x8cc7020884c87814
DATA k<>+0xf0(SB)/8, $0xa4506ceb90befffa
DATA k<>+0xf8(SB)/8, $0xc67178f2bef9a3f7
GLOBL k<>(SB), RODATA|NOPTR, $256

// Reverses the bytes of each word.
DATA swap<>+0x00(SB)/8, $0x0405060700010203
DATA swap<>+0x08(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// The state of a lane, as the instructions want it: words A, B, E, F in one
// register and C, D, G, H in the other. The words of the message are in four
// registers, X0 is scratch that SHA256RNDS2 reads, X15 is scratch.
//
//	        state    message
//	lane a  X1, X2   X5  X6  X7  X8
//	lane b  X3, X4   X9 X10 X11 X12

#define LOAD(p, i, m) \
	MOVOU 16*i(p), m \
	PSHUFB X13, m

// Rounds 4i to 4i+3 with the words m.
#define ROUNDS(abef, cdgh, m, i) \
	MOVO        m, X0            \
	PADDD       16*i(AX), X0   \
	SHA256RNDS2 X0, abef, cdgh   \
	PSHUFD      $0x0e, X0, X0    \
	SHA256RNDS2 X0, cdgh, abef

// The words that follow m, in the place of those that were twelve before it:
// next has been prepared by SHA256MSG1, last precedes m.
#define SCHEDULE(last, m, next) \
	MOVO       m, X15       \
	PALIGNR    $4, last, X15 \
	PADDD      X15, next    \
	SHA256MSG2 m, next

// Both lanes: rounds, and the words after next.
#define BOTH(i, la, ma, na, lb, mb, nb) \
	ROUNDS(X1, X2, ma, i) \
	ROUNDS(X3, X4, mb, i) \
	SCHEDULE(la, ma, na)  \
	SCHEDULE(lb, mb, nb)  \
	SHA256MSG1 ma, la     \
	SHA256MSG1 mb, lb

#define ONE(i, last, m, next) \
	ROUNDS(X1, X2, m, i)  \
	SCHEDULE(last, m, next) \
	SHA256MSG1 m, last

// func blocks1(h *[8]uint32, p []byte, n int)
TEXT ·blocks1(SB), NOSPLIT, $0-40
	MOVQ  h+0(FP), DI
	MOVQ  p_base+8(FP), SI
	MOVQ  n+32(FP), DX
	TESTQ DX, DX
	JZ    done
	LEAQ  k<>(SB), AX
	MOVOU swap<>(SB), X13

	// A B C D, E F G H into A B E F, C D G H; the first word is the highest.
	MOVOU   (DI), X1
	MOVOU   16(DI), X2
	PSHUFD  $0xb1, X1, X1
	PSHUFD  $0x1b, X2, X2
	MOVO    X1, X0
	PALIGNR $8, X2, X1
	PBLENDW $0xf0, X0, X2

loop:
	MOVO X1, X3
	MOVO X2, X4

	LOAD(SI, 0, X5)
	ROUNDS(X1, X2, X5, 0)
	LOAD(SI, 1, X6)
	ROUNDS(X1, X2, X6, 1)
	SHA256MSG1 X6, X5
	LOAD(SI, 2, X7)
	ROUNDS(X1, X2, X7, 2)
	SHA256MSG1 X7, X6
	LOAD(SI, 3, X8)
	ONE(3, X7, X8, X5)
	ONE(4, X8, X5, X6)
	ONE(5, X5, X6, X7)
	ONE(6, X6, X7, X8)
	ONE(7, X7, X8, X5)
	ONE(8, X8, X5, X6)
	ONE(9, X5, X6, X7)
	ONE(10, X6, X7, X8)
	ONE(11, X7, X8, X5)
	ONE(12, X8, X5, X6)
	ONE(13, X5, X6, X7)
	ROUNDS(X1, X2, X7, 14)
	SCHEDULE(X6, X7, X8)
	ROUNDS(X1, X2, X8, 15)

	PADDD X3, X1
	PADDD X4, X2
	ADDQ  $64, SI
	DECQ  DX
	JNZ   loop

	PSHUFD  $0x1b, X1, X1
	PSHUFD  $0xb1, X2, X2
	MOVO    X1, X0
	PBLENDW $0xf0, X2, X1
	PALIGNR $8, X0, X2
	MOVOU   X1, (DI)
	MOVOU   X2, 16(DI)

done:
	RET

// func blocks2(h *[8]uint32, p []byte, o *[8]uint32, q []byte, n int)
TEXT ·blocks2(SB), NOSPLIT, $64-72
	MOVQ h+0(FP), DI
	MOVQ p_base+8(FP), SI
	MOVQ o+32(FP), R8
	MOVQ q_base+40(FP), R9
	MOVQ n+64(FP), DX
	TESTQ DX, DX
	JZ    done
	LEAQ k<>(SB), AX
	MOVOU swap<>(SB), X13

	// A B C D, E F G H into A B E F, C D G H; the first word is the highest.
	MOVOU   (DI), X1
	MOVOU   16(DI), X2
	PSHUFD  $0xb1, X1, X1
	PSHUFD  $0x1b, X2, X2
	MOVO    X1, X0
	PALIGNR $8, X2, X1
	PBLENDW $0xf0, X0, X2
	MOVOU   (R8), X3
	MOVOU   16(R8), X4
	PSHUFD  $0xb1, X3, X3
	PSHUFD  $0x1b, X4, X4
	MOVO    X3, X0
	PALIGNR $8, X4, X3
	PBLENDW $0xf0, X0, X4

loop:
	MOVOU X1, (SP)
	MOVOU X2, 16(SP)
	MOVOU X3, 32(SP)
	MOVOU X4, 48(SP)

	LOAD(SI, 0, X5)
	LOAD(R9, 0, X9)
	ROUNDS(X1, X2, X5, 0)
	ROUNDS(X3, X4, X9, 0)
	LOAD(SI, 1, X6)
	LOAD(R9, 1, X10)
	ROUNDS(X1, X2, X6, 1)
	ROUNDS(X3, X4, X10, 1)
	SHA256MSG1 X6, X5
	SHA256MSG1 X10, X9
	LOAD(SI, 2, X7)
	LOAD(R9, 2, X11)
	ROUNDS(X1, X2, X7, 2)
	ROUNDS(X3, X4, X11, 2)
	SHA256MSG1 X7, X6
	SHA256MSG1 X11, X10
	LOAD(SI, 3, X8)
	LOAD(R9, 3, X12)
	BOTH(3, X7, X8, X5, X11, X12, X9)
	BOTH(4, X8, X5, X6, X12, X9, X10)
	BOTH(5, X5, X6, X7, X9, X10, X11)
	BOTH(6, X6, X7, X8, X10, X11, X12)
	BOTH(7, X7, X8, X5, X11, X12, X9)
	BOTH(8, X8, X5, X6, X12, X9, X10)
	BOTH(9, X5, X6, X7, X9, X10, X11)
	BOTH(10, X6, X7, X8, X10, X11, X12)
	BOTH(11, X7, X8, X5, X11, X12, X9)
	BOTH(12, X8, X5, X6, X12, X9, X10)
	BOTH(13, X5, X6, X7, X9, X10, X11)
	ROUNDS(X1, X2, X7, 14)
	ROUNDS(X3, X4, X11, 14)
	SCHEDULE(X6, X7, X8)
	SCHEDULE(X10, X11, X12)
	ROUNDS(X1, X2, X8, 15)
	ROUNDS(X3, X4, X12, 15)

	MOVOU (SP), X0
	PADDD X0, X1
	MOVOU 16(SP), X0
	PADDD X0, X2
	MOVOU 32(SP), X0
	PADDD X0, X3
	MOVOU 48(SP), X0
	PADDD X0, X4

	ADDQ $64, SI
	ADDQ $64, R9
	DECQ DX
	JNZ  loop

	PSHUFD  $0x1b, X1, X1
	PSHUFD  $0xb1, X2, X2
	MOVO    X1, X0
	PBLENDW $0xf0, X2, X1
	PALIGNR $8, X0, X2
	MOVOU   X1, (DI)
	MOVOU   X2, 16(DI)
	PSHUFD  $0x1b, X3, X3
	PSHUFD  $0xb1, X4, X4
	MOVO    X3, X0
	PBLENDW $0xf0, X4, X3
	PALIGNR $8, X0, X4
	MOVOU   X3, (R8)
	MOVOU   X4, 16(R8)

done:
	RET

// func cpuid(leaf uint32) (a, b, c uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-20
	MOVL leaf+0(FP), AX
	XORL CX, CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	RET
