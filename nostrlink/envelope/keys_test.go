package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"
)

const (
	nsecExample = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
	nsecHex     = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa"
	npubExample = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
	npubHex     = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e"
)

func TestSecretKeyForms(t *testing.T) {
	want, err := nostr.GetPublicKey(nsecHex)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{nsecExample, nsecHex, strings.ToUpper(nsecHex)} {
		sk, err := ParseSecretKey(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if got := sk.Public().Hex(); got != want {
			t.Errorf("%s: public key %s, want %s", s, got, want)
		}
		if got := sk.NSec(); got != nsecExample {
			t.Errorf("%s: NSec %s", s, got)
		}
	}
}

func TestSecretKeyRefused(t *testing.T) {
	const order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	for _, s := range []string{
		"", "nsec1", nsecExample[:62], nsecExample + "q", strings.Replace(nsecExample, "vl0", "vl9", 1),
		npubExample, nsecHex[:63], nsecHex + "0", "g" + nsecHex[1:], " " + nsecHex,
		strings.Repeat("0", 64), order, strings.Repeat("f", 64),
		"nsec1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
	} {
		sk, err := ParseSecretKey(s)
		if err == nil {
			t.Errorf("%q: accepted", s)
			continue
		}
		if len(s) > 8 && strings.Contains(err.Error(), s[5:]) {
			t.Errorf("the error quotes the input: %v", err)
		}
		if !sk.IsZero() || sk.NSec() != "" || sk.Public() != (PublicKey{}) {
			t.Errorf("%q: refused, and yet a key", s)
		}
	}
}

func TestPublicKeyForms(t *testing.T) {
	for _, s := range []string{npubExample, npubHex, strings.ToUpper(npubHex)} {
		pk, err := ParsePublicKey(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if pk.Hex() != npubHex || pk.NPub() != npubExample || pk.String() != npubExample {
			t.Errorf("%s became %s, %s", s, pk.Hex(), pk.NPub())
		}
		var back PublicKey
		if text, err := pk.MarshalText(); err != nil || string(text) != npubHex {
			t.Errorf("marshalled as %s, %v", text, err)
		} else if err := back.UnmarshalText(text); err != nil || back != pk {
			t.Errorf("unmarshalled as %v, %v", back, err)
		}
	}
	for _, s := range []string{
		"", "npub1", nsecExample, npubExample[:62], npubHex[:63], npubHex + "00", "g" + npubHex[1:],
		strings.Repeat("0", 64), strings.Repeat("f", 64), // no points
	} {
		if pk, err := ParsePublicKey(s); err == nil {
			t.Errorf("%q: accepted as %v", s, pk)
		}
		pk := PublicKey{1}
		if err := pk.UnmarshalText([]byte(s)); err == nil || pk != (PublicKey{1}) {
			t.Errorf("%q: unmarshalled as %v, %v", s, pk, err)
		}
	}
}

// TestSecretsAreNotPrinted puts keys where a careless line of code might, and
// looks for their bytes in every spelling.
func TestSecretsAreNotPrinted(t *testing.T) {
	p := newPair(t, 8)
	secrets := [][]byte{p.key.bytes()[:]}
	d := p.author.secret().d.Bytes()
	secrets = append(secrets, d[:])

	type config struct {
		Key      SecretKey
		hidden   SecretKey
		talk     ConversationKey
		sealer   *Sealer
		Pointer  *SecretKey
		Anything any
	}
	sealer := NewSealer(p.author, p.peer.Public(), p.key)
	if _, _, err := sealer.Seal(nil, p.plain, testTime); err != nil {
		t.Fatal(err)
	}
	values := []any{
		p.author, &p.author, p.key, &p.key, sealer, *sealer,
		config{p.author, p.author, p.key, sealer, &p.author, p.author},
		&config{p.author, p.author, p.key, sealer, &p.author, p.key},
		[]SecretKey{p.author}, map[string]any{"key": p.author, "talk": p.key},
	}
	var out bytes.Buffer
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%e", "%t", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		fmt.Fprintln(&out, v)
	}
	text := strings.ToLower(out.String())
	for _, secret := range secrets {
		words := fmt.Sprint(secret)
		for _, spelling := range []string{
			hex.EncodeToString(secret), string(secret), words[1 : len(words)-1],
			strings.ReplaceAll(words[1:len(words)-1], " ", ", "), nsecOf(secret),
			strings.ReplaceAll(fmt.Sprintf("%#v", secret[:8])[7:], "}", ""),
		} {
			if strings.Contains(text, strings.ToLower(spelling)) {
				t.Errorf("a secret was printed as %q", spelling)
			}
		}
	}
	if !strings.Contains(text, "[secret]") || !strings.Contains(text, "[sealer]") {
		t.Error("the placeholders are missing")
	}
	if _, err := json.Marshal(p.author); err == nil {
		t.Error("a secret key was marshalled")
	}
	if _, err := json.Marshal(p.key); err == nil {
		t.Error("a conversation key was marshalled")
	}
}

func nsecOf(secret []byte) string {
	s, _ := nip19.EncodePrivateKey(hex.EncodeToString(secret))
	return s
}

func TestWipe(t *testing.T) {
	p := newPair(t, 8)
	author, key := p.author, p.key // copies
	p.author.Wipe()
	p.key.Wipe()
	if !author.IsZero() || (*author.k).d != new(secret).d || author.NSec() != "" {
		t.Error("a copy of the secret key survived")
	}
	if !key.IsZero() || **key.k != [32]byte{} {
		t.Error("a copy of the conversation key survived")
	}
	if _, err := Conversation(author, p.peer.Public()); err == nil {
		t.Error("a wiped key has conversations")
	}
	for _, s := range []*Sealer{NewSealer(author, p.peer.Public(), newPair(t, 1).key), NewSealer(p.peer, author.Public(), key)} {
		if _, _, err := s.Seal(nil, p.plain, testTime); err == nil {
			t.Error("sealed with a wiped key")
		}
	}
	if _, err := Open(nil, make([]byte, 200), key); err == nil {
		t.Error("opened with a wiped key")
	}
	SecretKey{}.Wipe()
	ConversationKey{}.Wipe()
}

func TestCombine(t *testing.T) {
	a, b := newPair(t, 1).key, newPair(t, 1).key
	one := Combine(a, b, []byte("transcript"))
	if one.IsZero() || *one.bytes() == *a.bytes() || *one.bytes() == *b.bytes() {
		t.Fatal("not a new key")
	}
	if two := Combine(a, b, []byte("transcript")); *two.bytes() != *one.bytes() {
		t.Error("not the same key twice")
	}
	c := newPair(t, 1).key
	for name, other := range map[string]ConversationKey{
		"transcript":       Combine(a, b, []byte("transcripT")),
		"empty transcript": Combine(a, b, nil),
		"first key":        Combine(c, b, []byte("transcript")),
		"second key":       Combine(a, c, []byte("transcript")),
		"order":            Combine(b, a, []byte("transcript")),
	} {
		if *other.bytes() == *one.bytes() {
			t.Errorf("another %s gives the same key", name)
		}
	}
	if !Combine(a, ConversationKey{}, nil).IsZero() || !Combine(ConversationKey{}, b, nil).IsZero() {
		t.Error("half a key made a whole one")
	}
}

func FuzzKeys(f *testing.F) {
	for _, s := range []string{nsecExample, nsecHex, npubExample, npubHex, "nsec1", "npub1", "", "npub1qqq"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if sk, err := ParseSecretKey(s); err == nil {
			back, err := ParseSecretKey(sk.NSec())
			if err != nil || back.Public() != sk.Public() || back.secret().d != sk.secret().d {
				t.Errorf("NSec does not read back: %v", err)
			}
		}
		pk, err := ParsePublicKey(s)
		if err != nil {
			return
		}
		if !nostr.IsValidPublicKey(pk.Hex()) {
			t.Errorf("%q: go-nostr refuses the key", s)
		}
		for _, form := range []string{pk.Hex(), pk.NPub()} {
			if back, err := ParsePublicKey(form); err != nil || back != pk {
				t.Errorf("%s does not read back: %v, %v", form, back, err)
			}
		}
	})
}
