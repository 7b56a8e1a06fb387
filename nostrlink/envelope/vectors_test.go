package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	a, _ := GenerateSecretKey()
	b, _ := GenerateSecretKey()
	ab, err := Conversation(a, b.Public())
	if err != nil {
		t.Fatal(err)
	}
	ba, err := Conversation(b, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1700000000, 0)
	want := []byte("hello")
	raw, id, err := NewSealer(a, b.Public(), ab).Seal(nil, want, now)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := ParseEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := ev.Verify(); err != nil {
		t.Fatal(err)
	}
	if ev.ID != id || ev.PubKey != a.Public() || ev.Kind != KindNWS || ev.CreatedAt != now.Unix() {
		t.Fatalf("parsed %+v", ev)
	}
	got, err := Open(nil, ev.Content, ba)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
}

func TestConversationKeyVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/nip44.vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		V2 struct {
			Valid struct {
				GetConversationKey []struct{ Sec1, Pub2, Conversation_key string } `json:"get_conversation_key"`
			}
		}
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.V2.Valid.GetConversationKey {
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
		if got := hex.EncodeToString(ck.k[:]); got != c.Conversation_key {
			t.Errorf("got %s, want %s", got, c.Conversation_key)
		}
	}
}
