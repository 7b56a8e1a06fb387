package secp

import (
	"bytes"
	"crypto/rand"
	"math/big"
	mrand "math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

var (
	prime, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f", 16)
	order, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
)

// scalars are those near which the recodings and the additions have their
// edges, and some random ones.
func scalars(t *testing.T, random int) []Scalar {
	t.Helper()
	var out []Scalar
	add := func(v *big.Int) {
		v = new(big.Int).Mod(v, order)
		if v.Sign() == 0 {
			return
		}
		var b [32]byte
		var k Scalar
		v.FillBytes(b[:])
		k.SetBytes(&b)
		out = append(out, k)
	}
	lambda, _ := new(big.Int).SetString("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72", 16)
	for i := int64(-34); i <= 34; i++ {
		add(big.NewInt(i))
		add(new(big.Int).Add(lambda, big.NewInt(i)))
		for _, n := range []uint{4, 64, 127, 128, 129, 252, 255, 256} {
			v := new(big.Int).Lsh(big.NewInt(1), n)
			add(v.Add(v, big.NewInt(i)))
		}
		// The last addition of a multiplication of G meets an equal point.
		v := new(big.Int).Lsh(big.NewInt(30), 252)
		add(v.Add(v.Sub(v, order), big.NewInt(i)))
	}
	for range random {
		var b [32]byte
		rand.Read(b[:])
		add(new(big.Int).SetBytes(b[:]))
	}
	return out
}

func checkPoint(t *testing.T, what string, k *Scalar, got affine, want *secp256k1.JacobianPoint) {
	t.Helper()
	want.ToAffine()
	x, y := got.x.bytes(), got.y.bytes()
	if x != *want.X.Bytes() || y != *want.Y.Bytes() {
		t.Fatalf("%s(%v) = %x %x, want %v %v", what, k, x, y, want.X, want.Y)
	}
}

func TestMultiplyBase(t *testing.T) {
	for _, k := range scalars(t, 100) {
		var want secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(&k, &want)
		checkPoint(t, "multiplyBase", &k, multiplyBase(&k), &want)
	}
}

func TestSharedX(t *testing.T) {
	priv, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	var p, want secp256k1.JacobianPoint
	priv.PubKey().AsJacobian(&p)
	for _, k := range scalars(t, 100) {
		secp256k1.ScalarMultNonConst(&k, &p, &want)
		want.ToAffine()
		got, ok := SharedX(&k, p.X.Bytes())
		if !ok || got != *want.X.Bytes() {
			t.Fatalf("SharedX(%v) = %x, want %v", k, got, want.X)
		}
	}
}

func TestCombine(t *testing.T) {
	ks := scalars(t, 100)
	zero := Scalar{}
	ks = append(ks, zero)
	r := mrand.New(mrand.NewPCG(3, 4))
	for i, s := range ks {
		e := ks[r.IntN(len(ks))]
		d := ks[r.IntN(len(ks)-1)]
		switch i % 4 {
		case 0: // s·G + e·d·G is infinity
			e.InverseValNonConst(&d).Mul(&s).Negate()
		case 1: // the two terms are equal
			e.InverseValNonConst(&d).Mul(&s)
		case 2: // p is G itself
			d.SetInt(1)
		}
		p := multiplyBase(&d)
		got := combine(&s, &e, &p)
		x := p.x.bytes()
		if p.y.odd() == 1 { // a Key is the point with the even y
			e.Negate()
		}
		known := NewKey(&x).combine(&s, &e)
		if p.y.odd() == 1 {
			e.Negate()
		}
		if (got.z == (fe{})) != (known.z == (fe{})) || got.z != (fe{}) && got.toAffine() != known.toAffine() {
			t.Fatalf("a known key's sum differs: s = %v, e = %v, d = %v", s, e, d)
		}
		var sum Scalar
		sum.Mul2(&e, &d).Add(&s)
		if sum.IsZero() {
			if got.z != (fe{}) {
				t.Fatalf("%v G + %v p is not infinity", s, e)
			}
			continue
		}
		var want secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(&sum, &want)
		checkPoint(t, "combine", &s, got.toAffine(), &want)
	}
}

func TestSplit(t *testing.T) {
	var lambda Scalar
	lambda.SetByteSlice([]byte("\x53\x63\xad\x4c\xc0\x5c\x30\xe0\xa5\x26\x1c\x02\x88\x12\x64\x5a\x12\x2e\x22\xea\x20\x81\x66\x78\xdf\x02\x96\x7c\x1b\x23\xbd\x72"))
	scalar := func(m [2]uint64, negative bool) (k Scalar) {
		v := new(big.Int).SetUint64(m[1])
		v.Lsh(v, 64).Or(v, new(big.Int).SetUint64(m[0]))
		k.SetByteSlice(v.Bytes())
		if negative {
			k.Negate()
		}
		return k
	}
	for _, e := range scalars(t, 2000) {
		m1, m2, n1, n2 := split(&e)
		e1, e2 := scalar(m1, n1), scalar(m2, n2)
		e2.Mul(&lambda).Add(&e1)
		if !e2.Equals(&e) {
			t.Fatalf("split(%v) does not add up", e)
		}
	}
}

func TestEndomorphism(t *testing.T) {
	var lambda Scalar
	lambda.SetByteSlice([]byte("\x53\x63\xad\x4c\xc0\x5c\x30\xe0\xa5\x26\x1c\x02\x88\x12\x64\x5a\x12\x2e\x22\xea\x20\x81\x66\x78\xdf\x02\x96\x7c\x1b\x23\xbd\x72"))
	p := multiplyBase(&lambda)
	var x fe
	x.mul(&generator.x, &beta)
	if !x.equal(&p.x) || !p.y.equal(&generator.y) {
		t.Fatal("λ and β do not belong together")
	}
}

func TestLift(t *testing.T) {
	var b [32]byte
	for i := range 300 {
		if i < 20 {
			b = [32]byte{31: byte(i)}
		} else {
			rand.Read(b[:])
		}
		var x, y secp256k1.FieldVal
		overflow := x.SetBytes(&b) != 0
		want := !overflow && secp256k1.DecompressY(&x, false, &y)
		var p affine
		if got := p.lift(&b); got != want {
			t.Fatalf("lift(%x) = %v", b, got)
		}
		if want && p.y.bytes() != *y.Normalize().Bytes() {
			t.Fatalf("lift(%x) has another y", b)
		}
	}
}

func TestSchnorrAgainstBtcec(t *testing.T) {
	for i, d := range scalars(t, 100) {
		if i%7 != 0 {
			continue // the multiplications have been tested with all of them
		}
		var msg, aux [32]byte
		rand.Read(msg[:])
		rand.Read(aux[:])
		pub, odd := PublicKey(&d)
		var sig [64]byte
		Sign(&sig, &d, &pub, odd, &msg, &aux)
		if !Verify(&pub, &msg, &sig) {
			t.Fatalf("own signature refused: d = %v", d)
		}
		priv := secp256k1.NewPrivateKey(&d)
		theirs, err := schnorr.Sign(priv, msg[:], schnorr.CustomNonce(aux))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(theirs.Serialize(), sig[:]) {
			t.Fatalf("d = %v: signatures differ: %x, btcec %x", d, sig, theirs.Serialize())
		}
		other, err := schnorr.Sign(priv, msg[:])
		if err != nil {
			t.Fatal(err)
		}
		if !Verify(&pub, &msg, (*[64]byte)(other.Serialize())) {
			t.Fatalf("btcec's signature refused: d = %v", d)
		}
	}
}

// TestVerifyRefuses compares with btcec on signatures damaged in every way.
func TestVerifyRefuses(t *testing.T) {
	var d Scalar
	d.SetInt(12345)
	pub, odd := PublicKey(&d)
	var msg, aux [32]byte
	var good [64]byte
	Sign(&good, &d, &pub, odd, &msg, &aux)
	known := NewKey(&pub)
	check := func(name string, pub, msg [32]byte, sig [64]byte) {
		if Verify(&pub, &msg, &sig) {
			t.Errorf("%s: accepted", name)
		}
		if pub == known.pub && known.Verify(&msg, &sig) {
			t.Errorf("%s: accepted for a known key", name)
		}
		if key, err := schnorr.ParsePubKey(pub[:]); err == nil {
			if s, err := schnorr.ParseSignature(sig[:]); err == nil && s.Verify(msg[:], key) {
				t.Errorf("%s: accepted by btcec", name)
			}
		}
	}
	for bit := 0; bit < 512; bit += 3 {
		sig := good
		sig[bit/8] ^= 1 << (bit % 8)
		check("bit of the signature", pub, msg, sig)
		if bit < 256 {
			m, p := msg, pub
			m[bit/8] ^= 1 << (bit % 8)
			check("bit of the message", pub, m, good)
			p[bit/8] ^= 1 << (bit % 8)
			check("bit of the key", p, msg, good)
		}
	}
	var s Scalar
	s.SetByteSlice(good[32:])
	sig := good
	s.Negate().PutBytesUnchecked(sig[32:])
	check("s negated", pub, msg, sig)
	sig = good
	order.FillBytes(sig[32:])
	check("s is the order", pub, msg, sig)
	sig = good
	prime.FillBytes(sig[:32])
	check("r is p", pub, msg, sig)
	sig = good
	clear(sig[32:])
	check("s is zero", pub, msg, sig)
	check("all zero", pub, msg, [64]byte{})
	check("key is zero", [32]byte{}, msg, good)
	var p [32]byte
	prime.FillBytes(p[:])
	check("key is p", p, msg, good)
}

// TestVerifyNeedsEvenY signs with the nonce that BIP-340 would have negated.
func TestVerifyNeedsEvenY(t *testing.T) {
	var k, d, e Scalar
	d.SetInt(3)
	pub, odd := PublicKey(&d)
	if odd {
		d.Negate()
	}
	var msg [32]byte
	for i := uint32(1); i < 20; i++ {
		k.SetInt(i)
		r := multiplyBase(&k)
		x := r.x.bytes()
		challenge(&e, &x, &pub, &msg)
		e.Mul(&d).Add(&k)
		var sig [64]byte
		copy(sig[:32], x[:])
		e.PutBytesUnchecked(sig[32:])
		want := r.y.odd() == 0
		if got := Verify(&pub, &msg, &sig); got != want {
			t.Errorf("k = %d: accepted %v, want %v", i, got, want)
		}
		if got := NewKey(&pub).Verify(&msg, &sig); got != want {
			t.Errorf("k = %d: accepted for a known key %v, want %v", i, got, want)
		}
	}
}

// TestVerifyInfinity makes s·G − e·P infinite, for which r = 0 must not pass.
func TestVerifyInfinity(t *testing.T) {
	var d, e Scalar
	d.SetInt(7)
	pub, odd := PublicKey(&d)
	if odd {
		d.Negate()
	}
	var msg, r [32]byte
	challenge(&e, &r, &pub, &msg)
	e.Mul(&d)
	var sig [64]byte
	e.PutBytesUnchecked(sig[32:])
	if Verify(&pub, &msg, &sig) || NewKey(&pub).Verify(&msg, &sig) {
		t.Error("accepted")
	}
}

func TestNoAllocations(t *testing.T) {
	var d Scalar
	d.SetInt(99)
	pub, odd := PublicKey(&d)
	var msg, aux [32]byte
	var sig [64]byte
	known := NewKey(&pub)
	if n := testing.AllocsPerRun(10, func() {
		Sign(&sig, &d, &pub, odd, &msg, &aux)
		Verify(&pub, &msg, &sig)
		known.Verify(&msg, &sig)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzVerify(f *testing.F) {
	var d Scalar
	d.SetInt(5)
	pub, odd := PublicKey(&d)
	var msg, aux [32]byte
	var sig [64]byte
	Sign(&sig, &d, &pub, odd, &msg, &aux)
	f.Add(pub[:], msg[:], sig[:])
	f.Fuzz(func(t *testing.T, pub, msg, sig []byte) {
		if len(pub) != 32 || len(msg) != 32 || len(sig) != 64 {
			return
		}
		want := false
		if key, err := schnorr.ParsePubKey(pub); err == nil {
			if s, err := schnorr.ParseSignature(sig); err == nil {
				want = s.Verify(msg, key)
			}
		}
		if got := Verify((*[32]byte)(pub), (*[32]byte)(msg), (*[64]byte)(sig)); got != want {
			t.Errorf("Verify = %v, btcec %v", got, want)
		}
		if k := NewKey((*[32]byte)(pub)); k != nil && k.Verify((*[32]byte)(msg), (*[64]byte)(sig)) != want {
			t.Errorf("a known key's Verify = %v, btcec %v", !want, want)
		}
	})
}
