package sha2x

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
)

// text returns n bytes that differ from place to place and from seed to seed.
func text(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		seed = seed*5 + byte(i>>8) + 17
		b[i] = seed
	}
	return b
}

func need(t testing.TB) {
	if !Available() {
		t.Skip("the processor has no instructions for SHA-256")
	}
}

func check(t *testing.T, d *Digest, data []byte) {
	t.Helper()
	if got, want := d.Sum(), sha256.Sum256(data); got != want {
		t.Errorf("sum of %d bytes is %x, want %x", len(data), got, want)
	}
}

func TestSumsOfAllLengths(t *testing.T) {
	need(t)
	lengths := []int{0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 1000, 4096, 41000, 55122}
	for _, n := range lengths {
		p := text(n, 1)
		var alone Digest
		alone.Write(p)
		check(t, &alone, p)
		for _, m := range lengths {
			q := text(m, 2)
			var a, b Digest
			Write2(&a, p, &b, q)
			check(t, &a, p)
			check(t, &b, q)
		}
	}
}

func TestStandardVector(t *testing.T) { // FIPS 180-4's examples
	need(t)
	var d Digest
	d.Write([]byte("abc"))
	if got := fmt.Sprintf("%x", d.Sum()); got != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Error(got)
	}
}

func FuzzWrite2(f *testing.F) {
	need(f)
	f.Add([]byte("a"), []byte("b"), uint16(0), uint16(1))
	f.Add(text(200, 1), text(130, 2), uint16(64), uint16(65))
	f.Add(text(64, 1), text(640, 2), uint16(63), uint16(1))
	f.Fuzz(func(t *testing.T, p, q []byte, cutP, cutQ uint16) {
		var a, b Digest
		i, j := min(int(cutP), len(p)), min(int(cutQ), len(q))
		Write2(&a, p[:i], &b, q[:j])
		Write2(&a, p[i:], &b, q[j:])
		check(t, &a, p)
		check(t, &b, q)
	})
}

func BenchmarkSum(b *testing.B) {
	need(b)
	p, q := text(40960, 1), text(40960, 2)
	b.Run("two", func(b *testing.B) {
		b.SetBytes(int64(len(p) + len(q)))
		for b.Loop() {
			var x, y Digest
			Write2(&x, p, &y, q)
			x.Sum()
			y.Sum()
		}
	})
	b.Run("one", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			var x Digest
			x.Write(p)
			x.Sum()
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			sha256.Sum256(p)
		}
	})
}

func TestCopyGoesItsOwnWay(t *testing.T) {
	need(t)
	var a Digest
	a.Write(text(100, 1))
	b := a
	a.Write(text(100, 2))
	b.Write(text(100, 3))
	check(t, &a, bytes.Join([][]byte{text(100, 1), text(100, 2)}, nil))
	check(t, &b, bytes.Join([][]byte{text(100, 1), text(100, 3)}, nil))
}
