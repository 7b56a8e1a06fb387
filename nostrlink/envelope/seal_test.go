package envelope

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip44"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/chacha"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/sha2x"
)

var testTime = time.Unix(1_700_000_000, 0)

// lengths are those at which paddings change, and some between.
var lengths = []int{1, 2, 31, 32, 33, 63, 64, 65, 100, 255, 256, 257, 320, 321, 1023, 1024, 1025,
	8191, 8192, 8193, 16384, 16385, 30576, 32768, 32769, 40959, MaxPlaintext}

// TestSealForNostr seals here, verifies and decrypts by go-nostr and here.
func TestSealForNostr(t *testing.T) {
	p := newPair(t, MaxPlaintext)
	s := NewSealer(p.author, p.peer.Public(), p.key)
	back, err := Conversation(p.peer, p.author.Public())
	if err != nil {
		t.Fatal(err)
	}
	var event, plain []byte
	for _, n := range lengths {
		want := p.plain[:n]
		var id [32]byte
		event, id, err = s.Seal(event[:0], want, testTime)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := verifyByNostr(event)
		if err != nil {
			t.Fatalf("%d bytes: go-nostr: %v", n, err)
		}
		if theirs.PubKey != p.author.Public().Hex() || theirs.Kind != KindNWS || theirs.CreatedAt != nostr.Timestamp(testTime.Unix()) {
			t.Fatalf("%d bytes: %v", n, theirs)
		}
		if len(theirs.Tags) != 1 || len(theirs.Tags[0]) != 2 || theirs.Tags[0][0] != "p" || theirs.Tags[0][1] != p.peer.Public().Hex() {
			t.Fatalf("%d bytes: tags %v", n, theirs.Tags)
		}
		if got, err := nip44.Decrypt(theirs.Content, *back.bytes()); err != nil || got != string(want) {
			t.Fatalf("%d bytes: go-nostr decrypts %d bytes, %v", n, len(got), err)
		}

		ev, err := ParseEvent(event)
		if err != nil {
			t.Fatal(err)
		}
		if ev.ID != id || ev.PubKey != p.author.Public() || ev.Kind != KindNWS || ev.CreatedAt != testTime.Unix() {
			t.Fatalf("%d bytes: %v", n, ev)
		}
		if err := ev.Verify(); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		plain, err = Open(plain[:0], ev.Content, back)
		if err != nil || !bytes.Equal(plain, want) {
			t.Fatalf("%d bytes: opened %d, %v", n, len(plain), err)
		}
	}
}

// TestOpenFromNostr seals by go-nostr and opens here.
func TestOpenFromNostr(t *testing.T) {
	p := newPair(t, MaxPlaintext)
	plain := bytes.Repeat(p.plain, 2)
	for _, n := range append(lengths, 49152, 65535) {
		content, err := nip44.Encrypt(string(plain[:n]), *p.key.bytes())
		if err != nil {
			t.Fatal(err)
		}
		ev := nostr.Event{Kind: KindNWS, CreatedAt: 1, Tags: nostr.Tags{{"p", p.peer.Public().Hex()}}, Content: content}
		if err := ev.Sign(p.authorHex); err != nil {
			t.Fatal(err)
		}
		raw, err := ev.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		ours, err := ParseEvent(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := ours.Verify(); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if got, err := Open(nil, ours.Content, p.key); err != nil || !bytes.Equal(got, plain[:n]) {
			t.Fatalf("%d bytes: opened %d, %v", n, len(got), err)
		}
	}
}

func TestFullEventFitsRelays(t *testing.T) {
	p := newPair(t, MaxPlaintext)
	const limit, frame = 65536, len(`["EVENT",]`)
	if n := len(p.event); n != 55122 || n+frame > limit {
		t.Errorf("a full event has %d bytes", n)
	}
}

func TestSealTo(t *testing.T) {
	p := newPair(t, 1)
	s := NewSealer(p.author, p.peer.Public(), p.key)
	tags := [][]string{{"session_id", "a \"quoted\" one"}, {}, {"x"}, {"relay", "wss://r.example", "read"}}
	raw, _, err := s.SealTo([]byte("kept"), Template{Kind: 14300, CreatedAt: testTime, Tags: tags, Content: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	raw, ok := bytes.CutPrefix(raw, []byte("kept"))
	if !ok {
		t.Fatal("dst was not appended to")
	}
	if _, err := verifyByNostr(raw); err != nil {
		t.Fatal(err)
	}
	ev, err := ParseEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := ev.Verify(); err != nil {
		t.Fatal(err)
	}
	if ev.Kind != 14300 {
		t.Errorf("kind %d", ev.Kind)
	}
	want := append([][]string{{"p", p.peer.Public().Hex()}}, tags...)
	if got := ev.TagStrings(); !equalTags(got, want) {
		t.Errorf("tags %q, want %q", got, want)
	}
	if got, err := Open(nil, ev.Content, p.key); err != nil || string(got) != "{}" {
		t.Errorf("opened %q, %v", got, err)
	}
}

func equalTags(a, b [][]string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if strings.Join(a[i], "\x00") != strings.Join(b[i], "\x00") || len(a[i]) != len(b[i]) {
			return false
		}
	}
	return true
}

func TestSealRefuses(t *testing.T) {
	p := newPair(t, 1)
	good := Template{Kind: 1, CreatedAt: testTime, Content: []byte("x")}
	for name, change := range map[string]func(*Template){
		"kind below":  func(t *Template) { t.Kind = -1 },
		"kind above":  func(t *Template) { t.Kind = 65536 },
		"before 1970": func(t *Template) { t.CreatedAt = time.Unix(-1, 0) },
		"tag text":    func(t *Template) { t.Tags = [][]string{{"a", "\xff"}} },
		"no plain":    func(t *Template) { t.Content = nil },
		"long plain":  func(t *Template) { t.Content = make([]byte, MaxPlaintext+1) },
	} {
		bad := good
		change(&bad)
		dst := []byte("kept")
		got, _, err := NewSealer(p.author, p.peer.Public(), p.key).SealTo(dst, bad)
		if err == nil || string(got) != "kept" {
			t.Errorf("%s: sealed %q, %v", name, got, err)
		}
	}
	for name, s := range map[string]*Sealer{
		"no author":       NewSealer(SecretKey{}, p.peer.Public(), p.key),
		"no conversation": NewSealer(p.author, p.peer.Public(), ConversationKey{}),
	} {
		if got, _, err := s.SealTo([]byte("kept"), good); err == nil || string(got) != "kept" {
			t.Errorf("%s: sealed %q, %v", name, got, err)
		}
	}
	bad := good
	bad.Content = []byte("\xff")
	if _, _, err := Sign(nil, p.author, bad); err == nil {
		t.Error("signed text that is not UTF-8")
	}
	if _, _, err := Sign(nil, SecretKey{}, good); err == nil {
		t.Error("signed without a key")
	}
}

func TestSealsDiffer(t *testing.T) {
	p := newPair(t, 40)
	s := NewSealer(p.author, p.peer.Public(), p.key)
	a, ida, err := s.Seal(nil, p.plain, testTime)
	if err != nil {
		t.Fatal(err)
	}
	b, idb, err := s.Seal(nil, p.plain, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if ida == idb || bytes.Equal(a, b) {
		t.Error("two seals of the same plaintext are alike")
	}
}

// TestSealLeavesNoTrace checks that a long plaintext is not padding of a short
// one sealed after it.
func TestSealLeavesNoTrace(t *testing.T) {
	key, nonce := [32]byte{1}, [32]byte{2}
	payload := make([]byte, payloadLen(1000))
	var keys messageKeys
	keys.encrypt(payload, bytes.Repeat([]byte("x"), 1000), &key, &nonce)
	short := payload[:payloadLen(5)]
	keys.encrypt(short, []byte("short"), &key, &nonce)
	padded := short[payloadStart : len(short)-macSize]
	chacha.XOR(padded, &keys.cipher, &keys.nonce)
	if rest := padded[2+5:]; !bytes.Equal(rest, make([]byte, len(rest))) {
		t.Errorf("padding %q", rest)
	}
}

func TestHotPathAllocations(t *testing.T) {
	p := newPair(t, MaxPlaintext)
	s := NewSealer(p.author, p.peer.Public(), p.key)
	v := NewVerifier(4)
	var event, plain []byte
	round := func() {
		var err error
		if event, _, err = s.Seal(event[:0], p.plain, testTime); err != nil {
			t.Fatal(err)
		}
		ev, err := ParseEvent(event)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err = Open(plain[:0], ev.Content, p.key); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(10, round); n > 6 {
		t.Errorf("sealing and opening allocates %v times", n)
	}
	verify := func() {
		ev, err := ParseEvent(event)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range ev.Tags {
			if len(name) != 1 || len(value) != 64 {
				t.Fatal("wrong tag")
			}
		}
		if err := ev.Verify(); err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(&ev); err != nil {
			t.Fatal(err)
		}
	}
	for range worthTable {
		verify()
	}
	if n := testing.AllocsPerRun(10, verify); n != 0 {
		t.Errorf("parsing and verifying allocates %v times", n)
	}
}

// TestBothWaysToCloseAgree compares the way that computes two hashes side by
// side with the plain one, around all edges of blocks and of base64's groups.
func TestBothWaysToCloseAgree(t *testing.T) {
	if !sha2x.Available() {
		t.Skip("the processor has no instructions for SHA-256: there is one way only")
	}
	p := newPair(t, 1)
	to := p.peer.Public()
	for n := 1; n <= MaxPlaintext; n += 1 + n/7 {
		tags := [][]string{{"x", strings.Repeat("y", n%97)}}
		tmpl := Template{Kind: KindNWS, CreatedAt: testTime, Tags: tags, Content: bytes.Repeat([]byte("z"), n)}
		size := payloadLen(n)
		closed := func(how func(*writer, *messageKeys, []byte) [32]byte) (string, [32]byte) {
			var w writer
			if err := w.begin(nil, p.author, &tmpl, &to, base64.StdEncoding.EncodedLen(size)); err != nil {
				t.Fatal(err)
			}
			var keys messageKeys
			payload := make([]byte, size)
			keys.encrypt(payload, tmpl.Content, p.key.bytes(), &[32]byte{9})
			id := how(&w, &keys, payload)
			return string(w.buf), id
		}
		textA, idA := closed((*writer).closeTogether)
		textB, idB := closed((*writer).closeApart)
		if textA != textB || idA != idB {
			t.Errorf("%d bytes: the two ways differ", n)
		}
	}
}
