package secp

import (
	"math/big"
	mrand "math/rand/v2"
	"testing"
)

func (z *fe) big() *big.Int {
	v := new(big.Int)
	for i := 3; i >= 0; i-- {
		v.Lsh(v, 64).Or(v, new(big.Int).SetUint64(z[i]))
	}
	return v
}

// elements are the values that carries go wrong at, unreduced ones included,
// and some random ones.
func elements() []fe {
	all := ^uint64(0)
	limbs := []uint64{0, 1, 2, c - 1, c, c + 1, 1 << 63, all - c, all - c + 1, all - c + 2, all - 1, all}
	var out []fe
	for _, a := range limbs {
		out = append(out, fe{a}, fe{a, all, all, all}, fe{a, 0, 0, all}, fe{a, 0, 0, 1 << 63}, fe{0, 0, 0, a}, fe{all, all, all, a})
	}
	r := mrand.New(mrand.NewPCG(1, 2))
	for range 40 {
		out = append(out, fe{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()})
	}
	return out
}

func checkField(t *testing.T, op string, got *fe, want *big.Int, args ...*fe) {
	t.Helper()
	want.Mod(want, prime)
	n := *got
	n.normal()
	if n.big().Cmp(want) != 0 {
		t.Fatalf("%s%v = %x, want %x", op, args, n.big(), want)
	}
}

func TestFieldAgainstBig(t *testing.T) {
	es := elements()
	for i := range es {
		x := es[i]
		xb := x.big()
		var z fe
		z.sqr(&x)
		checkField(t, "sqr", &z, new(big.Int).Mul(xb, xb), &x)
		z.neg(&x)
		checkField(t, "neg", &z, new(big.Int).Neg(xb), &x)
		z.half(&x)
		checkField(t, "half", &z, new(big.Int).Mul(xb, new(big.Int).ModInverse(big.NewInt(2), prime)), &x)
		z.inv(&x)
		if inv := new(big.Int).ModInverse(xb, prime); inv != nil {
			checkField(t, "inv", &z, inv, &x)
		} else if !z.isZero() {
			t.Fatalf("inv(%v) = %v", x, z)
		}
		_, residue := z, new(big.Int).ModSqrt(new(big.Int).Mod(xb, prime), prime)
		if got := z.sqrt(&x); got != (residue != nil) {
			t.Fatalf("sqrt(%v) exists: %v", x, got)
		} else if got {
			z.sqr(&z)
			checkField(t, "sqrt²", &z, new(big.Int).Set(xb), &x)
		}
		if want := new(big.Int).Mod(xb, prime); x.isZero() != (want.Sign() == 0) || x.odd() != uint64(want.Bit(0)) {
			t.Fatalf("isZero or odd of %v", x)
		}
		for j := range es {
			y := es[j]
			yb := y.big()
			z.mul(&x, &y)
			checkField(t, "mul", &z, new(big.Int).Mul(xb, yb), &x, &y)
			z.add(&x, &y)
			checkField(t, "add", &z, new(big.Int).Add(xb, yb), &x, &y)
			z.sub(&x, &y)
			checkField(t, "sub", &z, new(big.Int).Sub(xb, yb), &x, &y)
			z = x
			z.mul(&z, &z)
			checkField(t, "mul in place", &z, new(big.Int).Mul(xb, xb), &x)
			if x.equal(&y) != (new(big.Int).Mod(new(big.Int).Sub(xb, yb), prime).Sign() == 0) {
				t.Fatalf("equal(%v, %v)", x, y)
			}
		}
	}
}

func TestFieldBytes(t *testing.T) {
	for _, x := range elements() {
		b := x.bytes()
		var y fe
		if !y.setBytes(&b) || !y.equal(&x) {
			t.Fatalf("%v became %v", x, y)
		}
	}
	for _, over := range []int64{0, 1, c - 1} {
		var b [32]byte
		new(big.Int).Add(prime, big.NewInt(over)).FillBytes(b[:])
		var y fe
		if y.setBytes(&b) {
			t.Errorf("p + %d accepted", over)
		}
	}
}
