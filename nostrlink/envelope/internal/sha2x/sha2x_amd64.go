package sha2x

// available says that the processor has the instructions, and SSSE3 and SSE4.1
// to bring the words in order.
var available = detect()

func detect() bool {
	const (
		ssse3 = 1 << 9  // leaf 1, ECX
		sse41 = 1 << 19 // leaf 1, ECX
		sha   = 1 << 29 // leaf 7, EBX
	)
	most, _, _ := cpuid(0)
	if most < 7 {
		return false
	}
	_, _, c := cpuid(1)
	_, b, _ := cpuid(7)
	return c&ssse3 != 0 && c&sse41 != 0 && b&sha != 0
}

// cpuid asks the processor; the subleaf is 0.
func cpuid(leaf uint32) (a, b, c uint32)

// blocks1 adds the first n blocks of p to h.
//
//go:noescape
func blocks1(h *[8]uint32, p []byte, n int)

// blocks2 adds the first n blocks of p to h and those of q to o.
//
//go:noescape
func blocks2(h *[8]uint32, p []byte, o *[8]uint32, q []byte, n int)
