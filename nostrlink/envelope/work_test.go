package envelope

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestSealWork(t *testing.T) {
	from, err := GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	to, err := GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := Conversation(from, to.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := NewSealer(from, to.Public(), key)
	for _, want := range []int{0, 1, 8, 13} {
		raw, id, err := s.SealWork(t.Context(), nil, []byte("worth the work"), time.Now(), want)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := ParseEvent(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := ev.Verify(); err != nil || ev.ID != id || Work(id) < want {
			t.Errorf("%d bits: %v, id %x", want, err, id)
		}
		if got, err := Open(nil, ev.Content, key); err != nil || string(got) != "worth the work" {
			t.Errorf("%d bits: %q, %v", want, got, err)
		}
		if want > 0 && !strings.Contains(string(raw), `["nonce","`) {
			t.Errorf("no nonce tag in %s", raw)
		}
	}
	if _, _, err := s.SealWork(t.Context(), nil, []byte("x"), time.Now(), MaxWork+1); err == nil {
		t.Error("any work is done")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.SealWork(gone, nil, []byte("x"), time.Now(), MaxWork); !errors.Is(err, context.Canceled) {
		t.Errorf("work for nobody: %v", err)
	}
}

func TestRework(t *testing.T) {
	author, err := GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := Sign(nil, author, Template{
		Kind: 38333, CreatedAt: time.Unix(1700000000, 0), Content: []byte("a \"text\"\n"),
		Tags: [][]string{{"x", noNonce}, {"nonce", "1", "2"}, {}, {"d", ""}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0, 1, 8, 13} {
		again, id, err := Rework(t.Context(), author, raw, want)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := ParseEvent(again)
		if err != nil {
			t.Fatal(err)
		}
		if err := ev.Verify(); err != nil || ev.ID != id || Work(id) < want {
			t.Errorf("%d bits: %v, id %x", want, err, id)
		}
		tags := ev.TagStrings()
		if ev.Kind != 38333 || ev.CreatedAt != 1700000000 || string(ev.Content) != "a \"text\"\n" || len(tags) != 4 ||
			!slices.Equal(tags[0], []string{"x", noNonce}) || tags[3][0] != "nonce" || tags[3][2] != strconv.Itoa(want) {
			t.Errorf("%d bits made %s", want, again)
		}
		raw = again // and once more
	}
	other, err := GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Rework(t.Context(), other, raw, 1); err == nil {
		t.Error("another's event")
	}
	if _, _, err := Rework(t.Context(), author, raw, MaxWork+1); err == nil {
		t.Error("any work is done")
	}
	if _, _, err := Rework(t.Context(), author, raw[1:], 1); err == nil {
		t.Error("no event")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Rework(gone, author, raw, MaxWork); !errors.Is(err, context.Canceled) {
		t.Errorf("work for nobody: %v", err)
	}
}

func TestWork(t *testing.T) {
	for want, id := range map[int][32]byte{0: {0x80}, 3: {0x1f}, 8: {0, 0xff}, 17: {0, 0, 0x40}, 256: {}} {
		if got := Work(id); got != want {
			t.Errorf("%x has %d zero bits, not %d", id[:4], want, got)
		}
	}
}
