package envelope

import (
	"context"
	"errors"
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

func TestWork(t *testing.T) {
	for want, id := range map[int][32]byte{0: {0x80}, 3: {0x1f}, 8: {0, 0xff}, 17: {0, 0, 0x40}, 256: {}} {
		if got := Work(id); got != want {
			t.Errorf("%x has %d zero bits, not %d", id[:4], want, got)
		}
	}
}
