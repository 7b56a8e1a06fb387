package wire

import (
	"strings"
	"testing"
)

func TestUUID(t *testing.T) {
	const text = "4b1da218-0e86-4b03-9714-1c416f711537"
	want := UUID{0x4b, 0x1d, 0xa2, 0x18, 0x0e, 0x86, 0x4b, 0x03, 0x97, 0x14, 0x1c, 0x41, 0x6f, 0x71, 0x15, 0x37}
	for _, spelling := range []string{text, strings.ToUpper(text)} {
		if u, err := ParseUUID(spelling); err != nil || u != want || u.String() != text {
			t.Errorf("%q: %v, %v", spelling, u, err)
		}
	}
	for _, bad := range []string{
		"", text[1:], text + "0", "{" + text[2:] + "}", strings.Replace(text, "-", "_", 1),
		"4b1da2180e864b0397141c416f711537", "gb1da218-0e86-4b03-9714-1c416f711537", "4b1da218-0e86-4b03-9714-1c416f71153\x00",
	} {
		if u, err := ParseUUID(bad); err == nil || u != (UUID{}) {
			t.Errorf("%q is read as %v", bad, u)
		}
	}
	a, b := NewUUID(), NewUUID()
	if a == b || a[6]>>4 != 4 || a[8]>>6 != 2 {
		t.Errorf("%v and %v are no two random UUIDs of version 4", a, b)
	}
}

func FuzzParseUUID(f *testing.F) {
	f.Add("4b1da218-0e86-4b03-9714-1c416f711537")
	f.Add("4b1da218-0e86-4b03-9714-1c416f71153-")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseUUID(text)
		if err == nil && u.String() != strings.ToLower(text) {
			t.Fatalf("%q is read as %v", text, u)
		}
	})
}
