package secp

import "math/bits"

// naf is a number below 2¹²⁹ in width-w non-adjacent form, least significant
// digit first: its digits are zero or odd and below 2^(w−1), and of w in a row
// at most one is not zero.
type naf [130]int16

// set fills n, which must be zero, with the form of hi·2⁶⁴ + lo, or of minus
// that, and returns the number of digits.
func (n *naf) set(lo, hi uint64, negative bool, w uint) (length int) {
	sign := int16(1)
	if negative {
		sign = -1
	}
	var top uint64 // bit 128, which rounding up may reach
	for i := 0; lo|hi|top != 0; {
		if skip := min(bits.TrailingZeros64(lo), 63); skip > 0 {
			lo = lo>>skip | hi<<(64-skip)
			hi = hi>>skip | top<<(64-skip)
			top = 0
			i += skip
			continue
		}
		d := int16(lo & (1<<w - 1))
		lo -= uint64(d)
		if d >= 1<<(w-1) {
			d -= 1 << w
			var k uint64
			lo, k = bits.Add64(lo, 1<<w, 0)
			hi, top = bits.Add64(hi, 0, k)
		}
		n[i] = sign * d
		length = i + 1
	}
	return length
}

// cut fills forms, which must be zero, with those of the limbs' halves, 32 bits
// each, and returns the number of digits of the longest.
func cut(forms []naf, limbs []uint64, negative bool, w uint) (length int) {
	for i, l := range limbs {
		length = max(length, forms[2*i].set(l&(1<<32-1), 0, negative, w))
		length = max(length, forms[2*i+1].set(l>>32, 0, negative, w))
	}
	return length
}

func abs(d int16) int16 { return max(d, -d) }
