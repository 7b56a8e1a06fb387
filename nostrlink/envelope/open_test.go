package envelope

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip44"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/chacha"
)

func TestOpenAppends(t *testing.T) {
	p := newPair(t, 1000)
	ev, err := ParseEvent(p.event)
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{0, 10, 2000} {
		dst := append(make([]byte, 0, 4+room), "kept"...)
		got, err := Open(dst, ev.Content, p.key)
		if err != nil || string(got[:4]) != "kept" || !bytes.Equal(got[4:], p.plain) {
			t.Errorf("room %d: %d bytes, %v", room, len(got), err)
		}
		ev.Content[100] ^= 1
		got, err = Open(dst, ev.Content, p.key)
		if err == nil || string(got) != "kept" {
			t.Errorf("room %d: %q, %v", room, got, err)
		}
		ev.Content[100] ^= 1
	}
}

// TestOpenRefusesTampering flips every bit of a payload.
func TestOpenRefusesTampering(t *testing.T) {
	p := newPair(t, 32)
	ev, err := ParseEvent(p.event)
	if err != nil {
		t.Fatal(err)
	}
	good, err := base64.StdEncoding.DecodeString(string(ev.Content))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := Open(nil, base64.StdEncoding.AppendEncode(nil, bad), p.key); err == nil {
			t.Fatalf("bit %d: opened %q", i, got)
		}
	}
	other := newPair(t, 1)
	if _, err := Open(nil, ev.Content, other.key); err == nil {
		t.Error("opened with another key")
	}
	for n := range len(ev.Content) {
		if _, err := Open(nil, ev.Content[:n], p.key); err == nil {
			t.Fatalf("opened the first %d characters", n)
		}
	}
	text := string(ev.Content)
	for name, bad := range map[string]string{
		"line end":      text[:60] + "\n" + text[61:],
		"line ends":     text[:60] + "\r\n\r\n" + text[60:],
		"line end last": text[:len(text)-4] + "\n" + text[len(text)-4:len(text)-1],
		"padding":       text[:len(text)-4] + "====",
		"padding first": "====" + text,
		"appended":      text + "AAAA",
		"url alphabet":  strings.Repeat("-_", 100),
		"not ASCII":     strings.Repeat("é", 100),
		"empty":         "",
	} {
		if _, err := Open(nil, []byte(bad), p.key); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// sealPadded makes a payload with a good MAC round padded, whatever it says.
func sealPadded(t testing.TB, padded []byte, key *[32]byte) []byte {
	t.Helper()
	payload := make([]byte, payloadStart+len(padded)+macSize)
	payload[0] = nip44Version
	copy(payload[payloadStart:], padded)
	var keys messageKeys
	keys.derive(key, (*[32]byte)(payload[1:]))
	end := len(payload) - macSize
	chacha.XOR(payload[payloadStart:end], &keys.cipher, &keys.nonce)
	mac := keyedHash(&keys.mac, payload[1:payloadStart], payload[payloadStart:end])
	copy(payload[end:], mac[:])
	return base64.StdEncoding.AppendEncode(nil, payload)
}

func TestOpenRefusesPaddingLies(t *testing.T) {
	key := [32]byte{9}
	ck := conversationKey(&key)
	for _, c := range []struct {
		length, padded int
		ok             bool
	}{
		{1, 32, true}, {32, 32, true}, {33, 64, true}, {40960, 40960, true}, {65535, 65536, true},
		{0, 32, false}, {33, 32, false}, {32, 64, false}, {1, 64, false}, {65535, 32, false},
		{31, 31, false}, {64, 96, false}, {40961, 40960, false}, {32769, 65536, false}, {100, 100, false},
	} {
		padded := make([]byte, 2+c.padded)
		binary.BigEndian.PutUint16(padded, uint16(c.length))
		got, err := Open(nil, sealPadded(t, padded, &key), ck)
		if (err == nil) != c.ok || c.ok && len(got) != c.length {
			t.Errorf("length %d in %d: %d bytes, %v", c.length, c.padded, len(got), err)
		}
	}
}

// FuzzOpen compares with go-nostr: on the text as it is, and on it as padded
// plaintext under a good MAC.
func FuzzOpen(f *testing.F) {
	key := [32]byte{5}
	ck := conversationKey(&key)
	f.Add([]byte(encryptToText(f, []byte("hello"), key, [32]byte{7})))
	f.Add(append([]byte{0, 5, 'h', 'e', 'l', 'l', 'o'}, make([]byte, 27)...))
	f.Add([]byte(strings.Repeat("Ag==", 40)))
	f.Add([]byte("#" + strings.Repeat("A", 131)))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, content := range [][]byte{data, sealPadded(t, data, &key)} {
			got, err := Open([]byte("kept"), content, ck)
			if !bytes.HasPrefix(got, []byte("kept")) || err != nil && len(got) != 4 {
				t.Fatalf("dst became %q, %v", got, err)
			}
			if bytes.ContainsAny(content, "\r\n") { // go-nostr reads on, or panics
				if err == nil {
					t.Fatal("opened a text with line ends")
				}
				continue
			}
			want, theirErr := nip44.Decrypt(string(content), key)
			if (err == nil) != (theirErr == nil) || err == nil && want != string(got[4:]) {
				t.Fatalf("%q, %v; go-nostr: %q, %v", got[4:], err, want, theirErr)
			}
		}
	})
}

// FuzzOpenBoth compares with Open, one by one.
func FuzzOpenBoth(f *testing.F) {
	key := [32]byte{5}
	ck := conversationKey(&key)
	long, short := encryptToText(f, bytes.Repeat([]byte("long"), 3000), key, [32]byte{1}), encryptToText(f, []byte("short"), key, [32]byte{2})
	f.Add([]byte(long), []byte(short), uint16(0))
	f.Add([]byte(short), []byte(short), uint16(70))
	f.Add([]byte(short), []byte(long[:len(long)-5]+"AAAA="), uint16(40000))
	f.Add([]byte("no"), []byte(short), uint16(1))
	f.Fuzz(func(t *testing.T, p, q []byte, room uint16) {
		var s [2]sealed
		for i, content := range [][]byte{p, q} {
			if s[i].read(make([]byte, 0, room), content, ck) != nil {
				return
			}
		}
		var errs [2]error
		errs[0], errs[1] = openBoth(&s[0], &s[1])
		for i, content := range [][]byte{p, q} {
			want, err := Open(nil, content, ck)
			if err != errs[i] || err == nil && !bytes.Equal(want, s[i].dst) {
				t.Errorf("payload %d: %d bytes, %v; alone: %d bytes, %v", i, len(s[i].dst), errs[i], len(want), err)
			}
		}
	})
}
