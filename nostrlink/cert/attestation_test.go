package cert

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

var now = time.Unix(1795227605, 0)

func TestAppendAndVerify(t *testing.T) {
	key := envelopetest.NewKey(t)
	k := newKeeper(t, key, now)
	raw, id, err := Append([]byte("before"), key, now, k.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	ev := envelopetest.Parse(t, raw[len("before"):])
	a, err := Verify(ev, key.Public(), now.Add(29*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if ev.ID != id || a.SPKI != SPKI(k.Certificate()) || !a.Certificate.Equal(k.Certificate()) ||
		!a.Created.Equal(now) || !a.Expires.Equal(k.Certificate().NotAfter) {
		t.Errorf("%+v", a)
	}
	if bytes.Contains(raw, []byte("PRIVATE")) || ev.Kind != 38334 {
		t.Errorf("kind %d: %s", ev.Kind, raw)
	}
	again, err := decode(a.PEM())
	if err != nil || !again.Equal(k.Certificate()) {
		t.Errorf("PEM: %v", err)
	}
	digits := hex.EncodeToString(a.SPKI[:])
	var tags []string
	for _, tag := range ev.TagStrings() {
		tags = append(tags, strings.Join(tag, " "))
	}
	want := []string{"d " + digits, "p " + key.Public().Hex(), "spki " + digits,
		"alt TLS certificate of " + name.Name{Key: key.Public()}.Host(), "expiration 1797819605"}
	if !slices.Equal(tags, want) {
		t.Errorf("tags %q, want %q", tags, want)
	}
}

func TestHashAlone(t *testing.T) {
	key := envelopetest.NewKey(t)
	spki := [32]byte{1, 2, 3}
	raw, _, err := AppendSPKI(nil, key, now, spki, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	a, err := Verify(envelopetest.Parse(t, raw), key.Public(), now)
	if err != nil || a.SPKI != spki || a.Certificate != nil || a.PEM() != nil || !a.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v, %v", a, err)
	}
	for _, expires := range []time.Time{now, now.Add(-time.Hour), now.Add(maxLife + time.Second)} {
		if _, _, err := AppendSPKI(nil, key, now, spki, expires); err == nil {
			t.Errorf("attested until %v", expires)
		}
	}
}

// certificate makes one as somebody else might.
func certificate(t testing.TB, key envelope.SecretKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), BasicConstraintsValid: true,
		DNSNames: []string{name.Name{Key: key.Public()}.Host()},
	}
	change(c)
	pair, err := issue(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// The reference implementation's form: RSA, content in PEM, a p tag alone.
func TestReferenceForm(t *testing.T) {
	key := envelopetest.NewKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	make := func(notAfter time.Time) *envelope.Event {
		template := &x509.Certificate{
			NotBefore: now, NotAfter: notAfter, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
			DNSNames: []string{name.Name{Key: key.Public(), Relays: []string{"ws://127.0.0.1:7777"}}.Host()},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return signed(t, key, now, encode(c), []string{"p", key.Public().Hex()})
	}
	a, err := Verify(make(now.Add(time.Hour)), key.Public(), now)
	if err != nil || !a.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v, %v", a, err)
	}
	_, err = Verify(make(now), key.Public(), now)
	wantErr(t, "ends as it begins", err, ErrExpired)
}

func TestVerifyRefuses(t *testing.T) {
	key, other := envelopetest.NewKey(t), envelopetest.NewKey(t)
	pub := key.Public()
	good := encode(newKeeper(t, key, now).Certificate())
	until := func(d time.Duration) []string { return []string{"expiration", fmt.Sprint(now.Add(d).Unix())} }
	spki := []string{"spki", strings.Repeat("ab", 32)}
	with := func(change func(*x509.Certificate)) *envelope.Event {
		return signed(t, key, now, encode(certificate(t, key, change)))
	}
	for what, ev := range map[string]*envelope.Event{
		ErrForeign.Error():    signed(t, other, now, good),
		ErrFuture.Error():     signed(t, key, now.Add(time.Hour), good),
		ErrExpired.Error():    signed(t, key, now.Add(-2*time.Hour), nil, spki, until(-time.Hour)),
		"expired":             signed(t, key, now, good, until(0)),
		"neither a cert":      signed(t, key, now, nil),
		"and expiration":      signed(t, key, now, nil, spki),
		"hash and expiration": signed(t, key, now, nil, until(time.Hour)),
		"not that of its":     signed(t, key, now, good, spki),
		"hash that is none":   signed(t, key, now, nil, []string{"spki", "abc"}, until(time.Hour)),
		"is none, or two":     signed(t, key, now, nil, spki, spki, until(time.Hour)),
		"hash that is":        signed(t, key, now, nil, []string{"spki", strings.Repeat("zz", 32)}, until(time.Hour)),
		"expiration that":     signed(t, key, now, good, []string{"expiration", "soon"}),
		"expiration that is":  signed(t, key, now, good, until(time.Hour), until(time.Hour)),
		"bytes, at most":      signed(t, key, now, append(good, make([]byte, maxContent)...)),
		"more than 32 tags":   signed(t, key, now, good, slices.Repeat([][]string{{"x"}}, 33)...),
		"something else":      signed(t, key, now, []byte("garbage")),
		"than one":            signed(t, key, now, append(slices.Clone(good), good...)),
		"cert: attestation: ": signed(t, key, now, bytes.Replace(good, []byte("\nMII"), []byte("\nAAA"), 1)),
		"not the key's own":   with(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "bank.example") }),
		"key's own":           with(func(c *x509.Certificate) { c.DNSNames = []string{name.Name{Key: other.Public()}.Host()} }),
		"own: \"*.nostr\"":    with(func(c *x509.Certificate) { c.DNSNames = []string{"*.nostr"} }),
		"0 names":             with(func(c *x509.Certificate) { c.DNSNames = nil }),
		"17 names":            with(func(c *x509.Certificate) { c.DNSNames = slices.Repeat(c.DNSNames, 17) }),
		"more than hosts":     with(func(c *x509.Certificate) { c.IPAddresses = []net.IP{{1, 1, 1, 1}} }),
		"than hosts":          with(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "https", Host: "bank.example"}} }),
		"vouch for others":    with(func(c *x509.Certificate) { c.IsCA = true }),
		"could vouch":         with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }),
		"vouch for":           with(func(c *x509.Certificate) { c.BasicConstraintsValid = false }),
	} {
		a, err := Verify(ev, pub, now)
		if err == nil || !strings.Contains(err.Error(), what) || a != nil {
			t.Errorf("%v, error %v does not say %q", a, err, what)
		}
	}
	note, _ := envelopetest.Sign(t, key, envelope.Template{Kind: 38335, CreatedAt: now, Content: good})
	if _, err := Verify(envelopetest.Parse(t, note), pub, now); err == nil || !strings.Contains(err.Error(), "38335") {
		t.Errorf("another kind: %v", err)
	}
	forged := signed(t, key, now, good)
	forged.Sig[5]++
	_, err := Verify(forged, pub, now)
	wantErr(t, "badly signed", err, envelope.ErrSignature)
	stolen := signed(t, other, now, good)
	stolen.PubKey = pub
	_, err = Verify(stolen, pub, now)
	wantErr(t, "somebody else's", err, envelope.ErrID)
}

func TestWeakKeys(t *testing.T) {
	for bits, ok := range map[int]bool{1024: false, 2048: true, 16384: false} {
		n := new(rsa.PublicKey)
		n.N = bigOf(bits)
		if err := checkKey(&x509.Certificate{PublicKey: n}); (err == nil) != ok {
			t.Errorf("RSA of %d bits: %v", bits, err)
		}
	}
	if err := checkKey(&x509.Certificate{PublicKey: "something"}); err == nil {
		t.Error("an unknown key is good")
	}
}

func TestAppendRefuses(t *testing.T) {
	key := envelopetest.NewKey(t)
	for what, change := range map[string]func(*x509.Certificate){
		"vouch":        func(c *x509.Certificate) { c.IsCA = true },
		"want one":     func(c *x509.Certificate) { c.NotAfter = now },
		"bank.example": func(c *x509.Certificate) { c.DNSNames = []string{"bank.example"} },
	} {
		out, _, err := Append([]byte("x"), key, now, certificate(t, key, change))
		if err == nil || !strings.Contains(err.Error(), what) || string(out) != "x" {
			t.Errorf("error %v does not say %q; %q", err, what, out)
		}
	}
}

// Whatever an event says, it counts for a bounded time.
func TestLifeIsBounded(t *testing.T) {
	key := envelopetest.NewKey(t)
	ev := signed(t, key, now, nil, []string{"spki", strings.Repeat("ab", 32)}, []string{"expiration", "99999999999"})
	a, err := Verify(ev, key.Public(), now)
	if err != nil || !a.Expires.Equal(now.Add(maxLife)) {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestVerifyAll(t *testing.T) {
	key := envelopetest.NewKey(t)
	at := func(seconds int, spki byte, life time.Duration) *envelope.Event {
		made := now.Add(time.Duration(seconds) * time.Second)
		raw, _, err := AppendSPKI(nil, key, made, [32]byte{spki}, made.Add(life))
		if err != nil {
			t.Fatal(err)
		}
		return envelopetest.Parse(t, raw)
	}
	later := now.Add(time.Minute)
	list, err := VerifyAll([]*envelope.Event{
		at(1, 1, time.Hour), at(5, 2, time.Hour), at(3, 1, 2*time.Hour), at(4, 3, time.Second), signed(t, envelopetest.NewKey(t), now, nil),
	}, key.Public(), later)
	if err != nil || len(list) != 2 || list[0].SPKI[0] != 2 || list[1].SPKI[0] != 1 || list[1].Created.Unix() != now.Unix()+3 {
		t.Errorf("%v, %v", list, err)
	}
	_, err = VerifyAll([]*envelope.Event{at(0, 1, time.Second), signed(t, envelopetest.NewKey(t), now.Add(-time.Hour), nil)}, key.Public(), later)
	wantErr(t, "expired", err, ErrExpired)
	_, err = VerifyAll(nil, key.Public(), now)
	wantErr(t, "none", err, ErrNone)
	var many []*envelope.Event
	for i := range 20 {
		many = append(many, at(i, byte(i), time.Hour))
	}
	if list, err = VerifyAll(many, key.Public(), later); err != nil || len(list) != maxAttested || list[0].SPKI[0] != 19 {
		t.Errorf("%d of many, %v", len(list), err)
	}
}

func FuzzVerify(f *testing.F) {
	key, err := envelope.ParseSecretKey(strings.Repeat("22", 32))
	if err != nil {
		f.Fatal(err)
	}
	c := certificate(f, key, func(*x509.Certificate) {})
	spki := SPKI(c)
	f.Add(encode(c), hex.EncodeToString(spki[:]), "1797819605")
	f.Add([]byte{}, strings.Repeat("ab", 32), "1797819605")
	f.Fuzz(func(t *testing.T, content []byte, spki, expiration string) {
		raw, _, err := envelope.Sign(nil, key, envelope.Template{
			Kind: envelope.KindCertificate, CreatedAt: now, Content: content,
			Tags: [][]string{{"spki", spki}, {"expiration", expiration}},
		})
		if err != nil {
			return
		}
		ev := envelopetest.Parse(t, raw)
		a, err := Verify(ev, key.Public(), now)
		if (a == nil) != (err != nil) {
			t.Fatalf("%v beside the error %v", a, err)
		}
		if err != nil {
			return
		}
		if !a.Expires.After(now) || a.Expires.After(now.Add(maxLife)) {
			t.Fatalf("expires %v", a.Expires)
		}
		if a.Certificate != nil && (a.Certificate.IsCA || a.SPKI != SPKI(a.Certificate)) {
			t.Fatalf("certificate %+v", a.Certificate)
		}
	})
}
