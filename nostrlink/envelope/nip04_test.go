package envelope

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip04"
)

// nip04Pair returns the key of a conversation, by us and as go-nostr has it.
func nip04Pair(tb testing.TB) (NIP04Key, []byte) {
	tb.Helper()
	p := newPair(tb, 1)
	key, err := ConversationNIP04(p.peer, p.author.Public())
	if err != nil {
		tb.Fatal(err)
	}
	theirs, err := nip04.ComputeSharedSecret(p.peer.Public().Hex(), p.authorHex)
	if err != nil {
		tb.Fatal(err)
	}
	return key, theirs
}

func TestNIP04OpensWhatGoNostrWrites(t *testing.T) {
	key, theirs := nip04Pair(t)
	for _, size := range []int{0, 1, 15, 16, 17, 255, 4096, 65535} {
		want := strings.Repeat("ü", size/2) + strings.Repeat("x", size%2)
		content, err := nip04.Encrypt(want, theirs)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenNIP04([]byte("before "), []byte(content), key)
		if err != nil || string(got) != "before "+want {
			t.Errorf("%d bytes: %d bytes, %v", size, len(got), err)
		}
	}
}

// A content of the NIP's form whose plaintext ends as given.
func nip04Content(tb testing.TB, key []byte, padded string) string {
	tb.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		tb.Fatal(err)
	}
	iv := bytes.Repeat([]byte{7}, aes.BlockSize)
	text := []byte(padded)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
	return base64.StdEncoding.EncodeToString(text) + "?iv=" + base64.StdEncoding.EncodeToString(iv)
}

func TestNIP04RefusesWhatIsNot(t *testing.T) {
	key, theirs := nip04Pair(t)
	good := nip04Content(t, theirs, "hello\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b")
	if got, err := OpenNIP04(nil, []byte(good), key); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	// Nothing is authenticated: one of 256 other keys leaves what looks like a
	// padding, and then there is some text.
	other, _ := nip04Pair(t)
	if got, err := OpenNIP04(nil, []byte(good), other); err == nil && string(got) == "hello" {
		t.Error("another's key opens it")
	}
	for name, c := range map[string]struct {
		content string
		key     NIP04Key
	}{
		"empty":               {"", key},
		"no vector":           {good[:24], key},
		"no ciphertext":       {good[24:], key},
		"short vector":        {good[:len(good)-4], key},
		"vector of 18 bytes":  {good[:len(good)-2] + "AA", key},
		"spare bits":          {strings.Replace(good, "?iv=BwcHBwcHBwcHBwcHBwcHBw==", "?iv=BwcHBwcHBwcHBwcHBwcHBx==", 1), key},
		"line end":            {good[:8] + "\n\n\n\n" + good[8:], key},
		"half a block":        {good[:8] + good[24:], key},
		"no base64":           {"!" + good[1:], key},
		"no key":              {good, NIP04Key{}},
		"padding of 0":        {nip04Content(t, theirs, strings.Repeat("\x00", 16)), key},
		"padding of 17":       {nip04Content(t, theirs, strings.Repeat("\x11", 32)), key},
		"padding not uniform": {nip04Content(t, theirs, "hello world\x05\x05\x04\x05\x05"), key},
		"too long":            {strings.Repeat("AAAA", 22000) + good[24:], key},
	} {
		if got, err := OpenNIP04([]byte("x"), []byte(c.content), c.key); err == nil || string(got) != "x" {
			t.Errorf("%s: opened as %q, %v", name, got, err)
		}
	}
}

func TestNIP04KeyIsSecret(t *testing.T) {
	key, theirs := nip04Pair(t)
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%#v", key), fmt.Sprintf("%x", key), key.LogValue().String()} {
		if strings.Contains(text, hex.EncodeToString(theirs[:4])) {
			t.Errorf("the key shows in %q", text)
		}
	}
	if _, err := key.MarshalText(); err == nil {
		t.Error("marshalled")
	}
	copied := key
	key.Wipe()
	if _, err := OpenNIP04(nil, []byte("AAAAAAAAAAAAAAAAAAAAAA==?iv=AAAAAAAAAAAAAAAAAAAAAA=="), copied); err != errNoKey {
		t.Errorf("after Wipe: %v", err)
	}
	if _, err := ConversationNIP04(SecretKey{}, PublicKey{}); err == nil {
		t.Error("a key of nothing")
	}
	p := newPair(t, 1)
	if _, err := ConversationNIP04(p.author, PublicKey(bytes.Repeat([]byte{0xff}, 32))); err == nil {
		t.Error("a key with what is no point")
	}
}

// What opens here, go-nostr opens, too, and alike.
func FuzzOpenNIP04(f *testing.F) {
	key, theirs := nip04Pair(f)
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA==?iv=AAAAAAAAAAAAAAAAAAAAAA=="))
	f.Add([]byte(nip04Content(f, theirs, "hello\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b")))
	f.Add([]byte("?iv=?iv=AAAAAAAAAAAAAAAAAAAAAA=="))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := OpenNIP04(nil, content, key)
		if err != nil {
			if len(got) != 0 {
				t.Fatalf("an error and %q", got)
			}
			return
		}
		want, err := nip04.Decrypt(string(content), theirs)
		if err != nil || want != string(got) {
			t.Fatalf("%q; go-nostr: %q, %v", got, want, err)
		}
		if !IsNIP04(content) {
			t.Fatal("opened what it does not recognize")
		}
	})
}
