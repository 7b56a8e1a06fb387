package secp

import (
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
)

func BenchmarkField(b *testing.B) {
	x := fe{1, 2, 3, 4}
	y := fe{5, 6, 7, 8}
	b.Run("mul", func(b *testing.B) {
		for b.Loop() {
			x.mul(&x, &y)
		}
	})
	b.Run("sqr", func(b *testing.B) {
		for b.Loop() {
			x.sqr(&x)
		}
	})
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			x.add(&x, &y)
		}
	})
	b.Run("inv", func(b *testing.B) {
		for b.Loop() {
			x.inv(&x)
		}
	})
	b.Run("double", func(b *testing.B) {
		p := jacobian{x, y, x}
		for b.Loop() {
			p.double(&p)
		}
	})
	b.Run("addAffine", func(b *testing.B) {
		p := jacobian{x, y, x}
		for b.Loop() {
			p.addAffine(&p, &generator)
		}
	})
	b.Run("add", func(b *testing.B) {
		p := jacobian{x, y, x}
		q := jacobian{y, x, y}
		for b.Loop() {
			p.add(&p, &q)
		}
	})
}

func BenchmarkSchnorr(b *testing.B) {
	priv, _ := btcec.NewPrivateKey()
	d := priv.Key
	pub, odd := PublicKey(&d)
	var msg, aux [32]byte
	var sig [64]byte
	Sign(&sig, &d, &pub, odd, &msg, &aux)
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			Sign(&sig, &d, &pub, odd, &msg, &aux)
		}
	})
	b.Run("sign/btcec", func(b *testing.B) {
		for b.Loop() {
			if _, err := schnorr.Sign(priv, msg[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if !Verify(&pub, &msg, &sig) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("verify/known", func(b *testing.B) {
		k := NewKey(&pub)
		for b.Loop() {
			if !k.Verify(&msg, &sig) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("newkey", func(b *testing.B) {
		for b.Loop() {
			NewKey(&pub)
		}
	})
	b.Run("verify/btcec", func(b *testing.B) {
		s, _ := schnorr.ParseSignature(sig[:])
		key, _ := schnorr.ParsePubKey(pub[:])
		for b.Loop() {
			if !s.Verify(msg[:], key) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("shared", func(b *testing.B) {
		for b.Loop() {
			SharedX(&d, &pub)
		}
	})
}
