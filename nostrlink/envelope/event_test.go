package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nbd-wtf/go-nostr"
)

// TestSignForNostr signs events with every difficult character, here and by
// go-nostr: the ids must be the same, and each must verify the other's.
func TestSignForNostr(t *testing.T) {
	p := newPair(t, 1)
	var controls strings.Builder
	for ch := range rune(0x80) {
		controls.WriteRune(ch)
	}
	texts := []string{
		"", "plain", controls.String(), `"`, `\`, `\"`, "a\nb\r\tc", "é €  😀\ufffd", "/<>&", strings.Repeat(`\"`, 300),
	}
	for i, text := range texts {
		tags := [][]string{{"d", text}, {}, {text}, {"a", "b", text, ""}}
		raw, id, err := Sign(nil, p.author, Template{Kind: KindAnnouncement, CreatedAt: testTime, Tags: tags, Content: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		theirs := nostr.Event{Kind: KindAnnouncement, CreatedAt: nostr.Timestamp(testTime.Unix()), Content: text}
		for _, tag := range tags {
			theirs.Tags = append(theirs.Tags, nostr.Tag(tag))
		}
		if err := theirs.Sign(p.authorHex); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(id[:]); got != theirs.ID {
			t.Errorf("text %d: id %s, go-nostr %s", i, got, theirs.ID)
		}
		if _, err := verifyByNostr(raw); err != nil {
			t.Errorf("text %d: go-nostr: %v", i, err)
		}
		reencoded, err := theirs.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		escaped, err := json.Marshal(theirs) // escapes more than it must
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{raw, reencoded, escaped} {
			ev, err := ParseEvent(text)
			if err != nil {
				t.Fatalf("text %d: %v", i, err)
			}
			if err := ev.Verify(); err != nil {
				t.Errorf("text %d: %v", i, err)
			}
			if string(ev.Content) != texts[i] || !equalTags(ev.TagStrings(), tags) {
				t.Errorf("text %d: content %q, tags %q", i, ev.Content, ev.TagStrings())
			}
			checkTags(t, &ev, tags)
		}
	}
}

func checkTags(t *testing.T, ev *Event, tags [][]string) {
	t.Helper()
	var want, got []string
	for _, tag := range tags {
		if len(tag) == 1 {
			want = append(want, tag[0], "")
		} else if len(tag) > 1 {
			want = append(want, tag[:2]...)
		}
	}
	for name, value := range ev.Tags {
		got = append(got, string(name), string(value))
	}
	if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
		t.Errorf("Tags gives %q, want %q", got, want)
	}
}

func TestTagsStops(t *testing.T) {
	p := newPair(t, 1)
	raw, _, err := Sign(nil, p.author, Template{CreatedAt: testTime, Tags: [][]string{{"a"}, {"b"}, {"c"}}})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := ParseEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name := range ev.Tags {
		n++
		if string(name) == "b" {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d tags seen", n)
	}
}

func TestVerifyRefuses(t *testing.T) {
	p := newPair(t, 1)
	raw, _, err := Sign(nil, p.author, Template{Kind: 1, CreatedAt: testTime, Tags: [][]string{{"p", "x"}}, Content: []byte("content")})
	if err != nil {
		t.Fatal(err)
	}
	good, err := ParseEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	v := NewVerifier(1)
	for range 2 * worthTable { // from some point on with a table
		check := func(name string, ev Event, want error) {
			t.Helper()
			if err := ev.Verify(); err != want {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
			if err := v.Verify(&ev); err != want {
				t.Errorf("%s: a Verifier says %v, want %v", name, err, want)
			}
		}
		rehash := func(ev Event) Event {
			ev.ID = ev.hash()
			return ev
		}
		check("as it was", good, nil)
		for name, change := range map[string]func(*Event){
			"author":     func(e *Event) { e.PubKey = p.peer.Public() },
			"no point":   func(e *Event) { e.PubKey = PublicKey{} },
			"above p":    func(e *Event) { e.PubKey = PublicKey(bytes.Repeat([]byte{255}, 32)) },
			"created_at": func(e *Event) { e.CreatedAt++ },
			"kind":       func(e *Event) { e.Kind++ },
			"tags":       func(e *Event) { e.tags = []byte(`[["p","y"]]`) },
			"content":    func(e *Event) { e.quoted = []byte(`"Content"`) },
		} {
			ev := good
			change(&ev)
			check(name, ev, ErrID)
			check(name+", new id", rehash(ev), ErrSignature)
		}
		for i := range 32 {
			ev := good
			ev.ID[i] ^= 0x10
			check("id", ev, ErrID)
		}
		for i := range 64 {
			ev := good
			ev.Sig[i] ^= 0x10
			check("signature", ev, ErrSignature)
		}
		ev := good
		copy(ev.Sig[:], bytes.Repeat([]byte{255}, 32)) // above p
		check("r out of range", ev, ErrSignature)
		ev = good
		copy(ev.Sig[32:], bytes.Repeat([]byte{255}, 32)) // above n
		check("s out of range", ev, ErrSignature)
	}
}

func TestVerifierIsBounded(t *testing.T) {
	const keys = 3
	v := NewVerifier(keys)
	for range 4 * keys {
		p := newPair(t, 1)
		ev, err := ParseEvent(p.event)
		if err != nil {
			t.Fatal(err)
		}
		for range worthTable + 1 {
			if err := v.Verify(&ev); err != nil {
				t.Fatal(err)
			}
		}
		if v.tables[ev.PubKey] == nil {
			t.Fatal("a key seen often has no table")
		}
		once, err := ParseEvent(newPair(t, 1).event)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(&once); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.tables) != keys || len(v.counts) != keys {
		t.Errorf("%d tables and %d counts for %d keys", len(v.tables), len(v.counts), keys)
	}
	none := NewVerifier(0)
	ev, err := ParseEvent(newPair(t, 1).event)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * worthTable {
		if err := none.Verify(&ev); err != nil {
			t.Fatal(err)
		}
	}
	if len(none.tables) != 0 {
		t.Error("a Verifier of no keys has a table")
	}
}

func TestVerifierConcurrently(t *testing.T) {
	v := NewVerifier(2)
	var events []Event
	for range 4 {
		ev, err := ParseEvent(newPair(t, 1).event)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, ev)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if err := v.Verify(&events[(i+j)%len(events)]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzSign signs whatever text there is, for go-nostr to verify.
func FuzzSign(f *testing.F) {
	p := newPair(f, 1)
	for _, s := range []string{"", "a\nb", "\x00\x1f\x7f\"\\", "é\u2028😀", "\xff"} {
		f.Add(s, s, uint16(1), uint32(1700000000))
	}
	f.Fuzz(func(t *testing.T, content, tag string, kind uint16, at uint32) {
		template := Template{Kind: int(kind), CreatedAt: time.Unix(int64(at), 0), Tags: [][]string{{tag, "x", tag}}, Content: []byte(content)}
		raw, id, err := Sign(nil, p.author, template)
		if valid := utf8.ValidString(content) && utf8.ValidString(tag); (err == nil) != valid {
			t.Fatalf("valid text: %v, error: %v", valid, err)
		}
		if err != nil || len(raw) > MaxEventSize {
			return
		}
		theirs, err := verifyByNostr(raw)
		if err != nil {
			t.Fatalf("go-nostr: %v", err)
		}
		ev, err := ParseEvent(raw)
		if err != nil {
			t.Fatal(err)
		}
		if ev.ID != id {
			t.Fatal("another id")
		}
		compareWithNostr(t, &ev, &theirs, ev.Verify() == nil)
	})
}

// TestCheckBothIDs tries all pairs of good events and of those with a wrong id,
// signature or text, of several lengths.
func TestCheckBothIDs(t *testing.T) {
	v := NewVerifier(4)
	var events []Event
	for _, size := range []int{1, 1000, MaxPlaintext} {
		good, err := ParseEvent(newPair(t, size).event)
		if err != nil {
			t.Fatal(err)
		}
		wrongID, wrongSig, wrongText := good, good, good
		wrongID.ID[5] ^= 1
		wrongSig.Sig[5] ^= 1
		wrongText.quoted = bytes.Clone(good.quoted)
		wrongText.quoted[len(good.quoted)/2] ^= 1
		events = append(events, good, wrongID, wrongSig, wrongText)
	}
	for i := range events {
		for j := range events {
			errI, errJ := CheckBothIDs(&events[i], &events[j])
			if wantI, wantJ := events[i].CheckID(), events[j].CheckID(); errI != wantI || errJ != wantJ {
				t.Errorf("events %d and %d: %v, %v; alone: %v, %v", i, j, errI, errJ, wantI, wantJ)
			}
			if errI == nil {
				errI = v.VerifySignature(&events[i])
			}
			if errJ == nil {
				errJ = v.VerifySignature(&events[j])
			}
			if wantI, wantJ := events[i].Verify(), events[j].Verify(); errI != wantI || errJ != wantJ {
				t.Errorf("events %d and %d: %v, %v; alone: %v, %v", i, j, errI, errJ, wantI, wantJ)
			}
		}
	}
}
