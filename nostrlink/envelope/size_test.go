package envelope

import (
	"math"
	"testing"
	"time"
)

func TestSizesAreThoseOfEvents(t *testing.T) {
	key, err := GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	conversation, err := Conversation(key, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := NewSealer(key, key.Public(), conversation)
	for _, n := range []int{1, 32, 33, 1000, 4096, 10240, 10241, MaxPlaintext} {
		raw, _, err := s.Seal(nil, make([]byte, n), time.Unix(1_800_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		ev, err := ParseEvent(raw)
		if err != nil {
			t.Fatal(err)
		}
		if EventSize(n) != len(raw) || ContentSize(n) != len(ev.Content) {
			t.Errorf("%d bytes: event of %d with %d of content, said to be %d and %d",
				n, len(raw), len(ev.Content), EventSize(n), ContentSize(n))
		}
	}
}

func TestFullestWithinALimit(t *testing.T) {
	for _, test := range []struct{ event, content, want int }{
		{math.MaxInt, math.MaxInt, MaxPlaintext},
		{65536, math.MaxInt, 40960},
		{16384, math.MaxInt, 10240},
		{math.MaxInt, ContentSize(8192), 8192},
		{math.MaxInt, ContentSize(8192) - 1, 7168},
		{EventSize(32), math.MaxInt, 32},
		{EventSize(32) - 1, math.MaxInt, 0},
	} {
		if got := FullestWithin(test.event, test.content); got != test.want {
			t.Errorf("within %d and %d: %d bytes, want %d", test.event, test.content, got, test.want)
		}
	}
}
