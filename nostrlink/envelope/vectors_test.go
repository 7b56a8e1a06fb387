package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// vectors are those of NIP-44, as published with it.
type vectors struct {
	V2 struct {
		Valid struct {
			ConversationKey []struct {
				Sec1, Pub2      string
				ConversationKey string `json:"conversation_key"`
			} `json:"get_conversation_key"`
			MessageKeys struct {
				ConversationKey string `json:"conversation_key"`
				Keys            []struct {
					Nonce       string
					ChachaKey   string `json:"chacha_key"`
					ChachaNonce string `json:"chacha_nonce"`
					HmacKey     string `json:"hmac_key"`
				}
			} `json:"get_message_keys"`
			PaddedLen [][2]int `json:"calc_padded_len"`
			Messages  []struct {
				Sec1, Sec2                string
				ConversationKey           string `json:"conversation_key"`
				Nonce, Plaintext, Payload string
			} `json:"encrypt_decrypt"`
			LongMessages []struct {
				ConversationKey string `json:"conversation_key"`
				Nonce, Pattern  string
				Repeat          int
				PlaintextSHA256 string `json:"plaintext_sha256"`
				PayloadSHA256   string `json:"payload_sha256"`
			} `json:"encrypt_decrypt_long_msg"`
		}
		Invalid struct {
			MessageLengths  []int `json:"encrypt_msg_lengths"`
			ConversationKey []struct {
				Sec1, Pub2, Note string
			} `json:"get_conversation_key"`
			Decrypt []struct {
				ConversationKey string `json:"conversation_key"`
				Payload, Note   string
			}
		}
	}
}

func readVectors(t *testing.T) *vectors {
	t.Helper()
	raw, err := os.ReadFile("testdata/nip44.vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t *testing.T, s string) (b [32]byte) {
	t.Helper()
	if n, err := hex.Decode(b[:], []byte(s)); err != nil || n != 32 {
		t.Fatalf("%q is not 32 bytes in hexadecimal", s)
	}
	return b
}

// encryptToText returns the content that a Sealer makes, with a nonce of the
// test's choice and without the limit of an event.
func encryptToText(t testing.TB, plaintext []byte, key, nonce [32]byte) string {
	t.Helper()
	author, err := GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	s := NewSealer(author, author.Public(), conversationKey(&key))
	event, _, err := s.seal(nil, &Template{Kind: KindNWS, CreatedAt: time.Unix(1, 0), Content: plaintext}, &key, &nonce)
	if err != nil {
		t.Fatal(err)
	}
	var e struct{ Content string }
	if err := json.Unmarshal(event, &e); err != nil {
		t.Fatal(err)
	}
	return e.Content
}

func TestVectorsConversationKey(t *testing.T) {
	v := readVectors(t)
	if len(v.V2.Valid.ConversationKey) < 30 || len(v.V2.Invalid.ConversationKey) < 8 {
		t.Fatal("vectors are missing")
	}
	for _, c := range v.V2.Valid.ConversationKey {
		sk, err := ParseSecretKey(c.Sec1)
		if err != nil {
			t.Fatal(err)
		}
		pk, err := ParsePublicKey(c.Pub2)
		if err != nil {
			t.Fatal(err)
		}
		ck, err := Conversation(sk, pk)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(ck.bytes()[:]); got != c.ConversationKey {
			t.Errorf("sec1 %s, pub2 %s: got %s, want %s", c.Sec1, c.Pub2, got, c.ConversationKey)
		}
	}
	for _, c := range v.V2.Invalid.ConversationKey {
		sk, err := ParseSecretKey(c.Sec1)
		if err == nil {
			if _, err = ParsePublicKey(c.Pub2); err == nil {
				t.Errorf("%s: the public key is accepted", c.Note)
			}
			_, err = Conversation(sk, unhex(t, c.Pub2))
		}
		if err == nil {
			t.Errorf("%s: accepted", c.Note)
		}
	}
}

func TestVectorsMessageKeys(t *testing.T) {
	v := readVectors(t).V2.Valid.MessageKeys
	if len(v.Keys) < 32 {
		t.Fatal("vectors are missing")
	}
	key := unhex(t, v.ConversationKey)
	for _, c := range v.Keys {
		nonce := unhex(t, c.Nonce)
		var k messageKeys
		k.derive(&key, &nonce)
		if got := hex.EncodeToString(k.cipher[:]); got != c.ChachaKey {
			t.Errorf("nonce %s: cipher key %s, want %s", c.Nonce, got, c.ChachaKey)
		}
		if got := hex.EncodeToString(k.nonce[:]); got != c.ChachaNonce {
			t.Errorf("nonce %s: cipher nonce %s, want %s", c.Nonce, got, c.ChachaNonce)
		}
		if got := hex.EncodeToString(k.mac[:]); got != c.HmacKey {
			t.Errorf("nonce %s: MAC key %s, want %s", c.Nonce, got, c.HmacKey)
		}
	}
}

func TestVectorsPaddedLen(t *testing.T) {
	v := readVectors(t).V2.Valid.PaddedLen
	if len(v) < 24 {
		t.Fatal("vectors are missing")
	}
	for _, c := range v {
		if got := paddedLen(c[0]); got != c[1] {
			t.Errorf("paddedLen(%d) = %d, want %d", c[0], got, c[1])
		}
	}
}

func TestVectorsMessages(t *testing.T) {
	v := readVectors(t).V2.Valid
	if len(v.Messages) < 10 || len(v.LongMessages) < 3 {
		t.Fatal("vectors are missing")
	}
	for _, c := range v.Messages {
		sk, err := ParseSecretKey(c.Sec1)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := ParseSecretKey(c.Sec2)
		if err != nil {
			t.Fatal(err)
		}
		ck, err := Conversation(sk, peer.Public())
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(ck.bytes()[:]); got != c.ConversationKey {
			t.Errorf("%q: conversation key %s, want %s", c.Plaintext, got, c.ConversationKey)
		}
		if got := encryptToText(t, []byte(c.Plaintext), *ck.bytes(), unhex(t, c.Nonce)); got != c.Payload {
			t.Errorf("%q: payload %s, want %s", c.Plaintext, got, c.Payload)
		}
		if got, err := Open(nil, []byte(c.Payload), ck); err != nil || string(got) != c.Plaintext {
			t.Errorf("%q: opened %q, %v", c.Plaintext, got, err)
		}
	}
	for _, c := range v.LongMessages {
		plain := []byte(strings.Repeat(c.Pattern, c.Repeat))
		if got := sha256.Sum256(plain); hex.EncodeToString(got[:]) != c.PlaintextSHA256 {
			t.Fatalf("plaintext of %q is not the vector's", c.Pattern)
		}
		key := unhex(t, c.ConversationKey)
		payload := encryptToText(t, plain, key, unhex(t, c.Nonce))
		if got := sha256.Sum256([]byte(payload)); hex.EncodeToString(got[:]) != c.PayloadSHA256 {
			t.Errorf("payload of %d × %q differs", c.Repeat, c.Pattern)
		}
		if got, err := Open(nil, []byte(payload), conversationKey(&key)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d × %q: opened %d bytes, %v", c.Repeat, c.Pattern, len(got), err)
		}
	}
}

func TestVectorsInvalid(t *testing.T) {
	v := readVectors(t).V2.Invalid
	if len(v.Decrypt) < 12 || len(v.MessageLengths) < 4 {
		t.Fatal("vectors are missing")
	}
	for _, c := range v.Decrypt {
		key := unhex(t, c.ConversationKey)
		if got, err := Open(nil, []byte(c.Payload), conversationKey(&key)); err == nil {
			t.Errorf("%s: opened %q", c.Note, got)
		}
	}
	// The NIP has since given lengths above 65,535 a form; nothing here seals
	// more than MaxPlaintext all the same.
	p := newPair(t, 1)
	s := NewSealer(p.author, p.peer.Public(), p.key)
	for _, n := range append(v.MessageLengths, MaxPlaintext+1) {
		if _, _, err := s.Seal(nil, make([]byte, n), testTime); err == nil {
			t.Errorf("%d bytes: sealed", n)
		}
	}
}
