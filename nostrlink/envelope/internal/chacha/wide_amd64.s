#include "textflag.h"

// What the counters of the sixteen blocks are ahead of the state's.
DATA ahead<>+0x00(SB)/8, $0x0000000100000000
DATA ahead<>+0x08(SB)/8, $0x0000000300000002
DATA ahead<>+0x10(SB)/8, $0x0000000500000004
DATA ahead<>+0x18(SB)/8, $0x0000000700000006
DATA ahead<>+0x20(SB)/8, $0x0000000900000008
DATA ahead<>+0x28(SB)/8, $0x0000000b0000000a
DATA ahead<>+0x30(SB)/8, $0x0000000d0000000c
DATA ahead<>+0x38(SB)/8, $0x0000000f0000000e
GLOBL ahead<>(SB), RODATA|NOPTR, $64

// Each of Z0 to Z15 holds one word of the state for all sixteen blocks.

// a += b; d = (d ^ a) rotated left
#define MIX(a, b, d, left) \
	VPADDD b, a, a \
	VPXORD a, d, d \
	VPROLD $left, d, d

// One half of four quarter rounds.
#define HALF(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, l, m) \
	MIX(a0, b0, d0, l) \
	MIX(a1, b1, d1, l) \
	MIX(a2, b2, d2, l) \
	MIX(a3, b3, d3, l) \
	MIX(c0, d0, b0, m) \
	MIX(c1, d1, b1, m) \
	MIX(c2, d2, b2, m) \
	MIX(c3, d3, b3, m)

#define QUARTERS(b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3) \
	HALF(Z0, Z1, Z2, Z3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, 16, 12) \
	HALF(Z0, Z1, Z2, Z3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, 8, 7)

// Four words each of all blocks become, in a quarter of a register, the four
// words of one block: those of blocks 0, 4, 8, 12 in a, and so on.
#define WORDS(a, b, c, d) \
	VPUNPCKLDQ  b, a, Z16     \
	VPUNPCKHDQ  b, a, Z17     \
	VPUNPCKLDQ  d, c, Z18     \
	VPUNPCKHDQ  d, c, Z19     \
	VPUNPCKLQDQ Z18, Z16, a   \
	VPUNPCKHQDQ Z18, Z16, b   \
	VPUNPCKLQDQ Z19, Z17, c   \
	VPUNPCKHQDQ Z19, Z17, d

#define PUT(lo, hi, which, at) \
	VSHUFI32X4 $which, hi, lo, Z20 \
	VPXORD     at(SI), Z20, Z20    \
	VMOVDQU32  Z20, at(SI)

// The quarters of four registers become blocks, every fourth one, and are added
// to the text.
#define BLOCKS(a, b, c, d, at) \
	VSHUFI32X4 $0x44, b, a, Z16 \
	VSHUFI32X4 $0x44, d, c, Z17 \
	VSHUFI32X4 $0xee, b, a, Z18 \
	VSHUFI32X4 $0xee, d, c, Z19 \
	PUT(Z16, Z17, 0x88, at)     \
	PUT(Z16, Z17, 0xdd, 256+at) \
	PUT(Z18, Z19, 0x88, 512+at) \
	PUT(Z18, Z19, 0xdd, 768+at)

// func xorChunks(state *[16]uint32, p *byte, n int)
TEXT ·xorChunks(SB), NOSPLIT, $0-24
	MOVQ      state+0(FP), DI
	MOVQ      p+8(FP), SI
	MOVQ      n+16(FP), DX
	VMOVDQU32 ahead<>(SB), Z31

chunk:
	VPBROADCASTD 0(DI), Z0
	VPBROADCASTD 4(DI), Z1
	VPBROADCASTD 8(DI), Z2
	VPBROADCASTD 12(DI), Z3
	VPBROADCASTD 16(DI), Z4
	VPBROADCASTD 20(DI), Z5
	VPBROADCASTD 24(DI), Z6
	VPBROADCASTD 28(DI), Z7
	VPBROADCASTD 32(DI), Z8
	VPBROADCASTD 36(DI), Z9
	VPBROADCASTD 40(DI), Z10
	VPBROADCASTD 44(DI), Z11
	VPBROADCASTD 48(DI), Z12
	VPBROADCASTD 52(DI), Z13
	VPBROADCASTD 56(DI), Z14
	VPBROADCASTD 60(DI), Z15
	VPADDD       Z31, Z12, Z12
	VMOVDQA32    Z12, Z30

	MOVQ $10, CX

rounds:
	QUARTERS(Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	QUARTERS(Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14)
	DECQ CX
	JNZ  rounds

	VPADDD.BCST 0(DI), Z0, Z0
	VPADDD.BCST 4(DI), Z1, Z1
	VPADDD.BCST 8(DI), Z2, Z2
	VPADDD.BCST 12(DI), Z3, Z3
	VPADDD.BCST 16(DI), Z4, Z4
	VPADDD.BCST 20(DI), Z5, Z5
	VPADDD.BCST 24(DI), Z6, Z6
	VPADDD.BCST 28(DI), Z7, Z7
	VPADDD.BCST 32(DI), Z8, Z8
	VPADDD.BCST 36(DI), Z9, Z9
	VPADDD.BCST 40(DI), Z10, Z10
	VPADDD.BCST 44(DI), Z11, Z11
	VPADDD      Z30, Z12, Z12
	VPADDD.BCST 52(DI), Z13, Z13
	VPADDD.BCST 56(DI), Z14, Z14
	VPADDD.BCST 60(DI), Z15, Z15

	WORDS(Z0, Z1, Z2, Z3)
	WORDS(Z4, Z5, Z6, Z7)
	WORDS(Z8, Z9, Z10, Z11)
	WORDS(Z12, Z13, Z14, Z15)
	BLOCKS(Z0, Z4, Z8, Z12, 0)
	BLOCKS(Z1, Z5, Z9, Z13, 64)
	BLOCKS(Z2, Z6, Z10, Z14, 128)
	BLOCKS(Z3, Z7, Z11, Z15, 192)

	ADDL $16, 48(DI)
	ADDQ $1024, SI
	DECQ DX
	JNZ  chunk

	VZEROUPPER
	RET
