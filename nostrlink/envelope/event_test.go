package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

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

// parts are the fields of a valid event as JSON texts, to be put together in
// all sorts of ways.
func parts(t testing.TB, content string) map[string]string {
	t.Helper()
	p := newPair(t, 1)
	raw, _, err := Sign(nil, p.author, Template{Kind: 1, CreatedAt: testTime, Tags: [][]string{{"p", "x"}, {"t"}}, Content: []byte(content)})
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for name, value := range fields {
		out[name] = string(value)
	}
	return out
}

var fieldNames = []string{"id", "pubkey", "created_at", "kind", "tags", "content", "sig"}

// join writes the fields in the order given, with space between all tokens.
func join(fields map[string]string, order []string, space string) string {
	var b strings.Builder
	b.WriteString(space + "{" + space)
	for i, name := range order {
		if i > 0 {
			b.WriteString("," + space)
		}
		fmt.Fprintf(&b, "%q%s:%s%s%s", name, space, space, fields[name], space)
	}
	b.WriteString("}" + space)
	return b.String()
}

func TestParseEventForms(t *testing.T) {
	fields := parts(t, "content")
	accept := func(name, text string) {
		t.Helper()
		ev, err := ParseEvent([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if err := ev.Verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if string(ev.Content) != "content" || ev.Kind != 1 || ev.CreatedAt != testTime.Unix() || !equalTags(ev.TagStrings(), [][]string{{"p", "x"}, {"t"}}) {
			t.Errorf("%s: parsed %+v", name, ev)
		}
	}
	for i := range fieldNames {
		order := append(append([]string{}, fieldNames[i:]...), fieldNames[:i]...)
		for _, space := range []string{"", " ", "\n", "\t\r\n "} {
			accept("order and space", join(fields, order, space))
		}
	}
	with := func(name, value string) string {
		changed := make(map[string]string)
		for k, v := range fields {
			changed[k] = v
		}
		changed[name] = value
		order := fieldNames
		if fields[name] == "" {
			order = append([]string{name}, order...)
		}
		return join(changed, order, "")
	}
	accept("space in tags", with("tags", ` [ [ "p" , "x" ] , [ "t" ] ] `))
	accept("escapes in tags", with("tags", `[["\u0070","x"],["t"]]`))
	accept("escapes in content", with("content", `"\u0063ontent"`))
	accept("escapes in id", with("id", strings.Replace(fields["id"], fields["id"][1:2], fmt.Sprintf(`\u%04x`, fields["id"][1]), 1)))
	accept("unknown field", with("ots", `{"deep":[1,2.5e3,null,"\u0000"]}`))
	accept("field in capitals is another", with("ID", `1`))
	accept("escaped name", strings.Replace(join(fields, fieldNames, ""), `"kind"`, `"\u006bind"`, 1))
}

func TestParseEventRefuses(t *testing.T) {
	fields := parts(t, "content")
	good := join(fields, fieldNames, "")
	if _, err := ParseEvent([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for n := range len(good) {
		if _, err := ParseEvent([]byte(good[:n])); err == nil {
			t.Fatalf("accepted the first %d bytes", n)
		}
	}
	cases := map[string]string{
		"nothing":       "",
		"not an object": "[]",
		"null":          "null",
		"text after":    good + "x",
		"twice":         good + good,
		"too long":      good[:len(good)-1] + `,"x":"` + strings.Repeat("x", MaxEventSize) + `"}`,
		"comma last":    good[:len(good)-1] + ",}",
		"deep":          good[:len(good)-1] + `,"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}",
	}
	for _, name := range fieldNames {
		var others []string
		for _, other := range fieldNames {
			if other != name {
				others = append(others, other)
			}
		}
		cases["without "+name] = join(fields, others, "")
		cases["two "+name] = join(fields, append(others, name, name), "")
		cases["two, unusual, "+name] = strings.Replace(join(fields, append(others, name, name), ""), `"`+name[:1], fmt.Sprintf(`"\u%04x`, name[0]), 1)
	}
	for name, values := range map[string][]string{
		"id":         {`"` + strings.Repeat("A", 64) + `"`, `""`, `1`, `null`, fields["sig"], `"` + strings.Repeat("g", 64) + `"`, fields["id"][:64] + `"`, `"` + strings.Repeat("é", 32) + `"`},
		"pubkey":     {`"` + strings.Repeat("A", 64) + `"`, `[]`, `null`, `"x"`},
		"sig":        {fields["id"], `{}`, `null`},
		"created_at": {`-1`, `1.0`, `1e3`, `"1"`, `01`, `null`, `9223372036854775808`, `99999999999999999999999999`, ``, `1_0`},
		"kind":       {`65536`, `-1`, `1.5`, `"1"`, `null`, `00`, `true`},
		"tags":       {`null`, `{}`, `[1]`, `[null]`, `["p"]`, `[["p",1]]`, `[["p",null]]`, `[["p"],]`, `[["p",]]`, `[[["p"]]]`, `""`, `[["p"]`, `[["p"}]`, "[[\"\x01\"]]", "[[\"\xff\"]]"},
		"content":    {`null`, `1`, `[]`, "\"\x01\"", "\"\n\"", "\"\xff\"", `"\ud800"`, `"\udc00"`, `"\ud800\ud800"`, `"\x"`, `"\u12"`, "\"\xed\xa0\x80\"", `"`, `"\"`},
	} {
		for _, value := range values {
			changed := make(map[string]string)
			for k, v := range fields {
				changed[k] = v
			}
			changed[name] = value
			cases[name+" = "+value] = join(changed, fieldNames, "")
			changed["unknown"] = "1" // forces the slow path
			cases[name+", with an unknown field, = "+value] = join(changed, append([]string{"unknown"}, fieldNames...), "")
		}
	}
	for name, text := range cases {
		if ev, err := ParseEvent([]byte(text)); err == nil {
			t.Errorf("%s: accepted as %+v", name, ev)
		} else if errors.Is(err, errUnusual) {
			t.Errorf("%s: %v", name, err)
		}
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

// FuzzParseEvent compares with go-nostr where both accept, and reads back what
// it has read.
func FuzzParseEvent(f *testing.F) {
	for _, content := range []string{"", "content", "a\nb\x00\"\\", "é😀"} {
		fields := parts(f, content)
		f.Add([]byte(join(fields, fieldNames, "")))
		f.Add([]byte(join(fields, fieldNames, " ")))
		fields["unknown"] = `[{"a":"\u00e9"}]`
		f.Add([]byte(join(fields, append([]string{"unknown"}, fieldNames...), "")))
	}
	f.Add([]byte(`{"id":"` + strings.Repeat("0", 64) + `","pubkey":"` + strings.Repeat("0", 64) + `","created_at":0,"kind":0,"tags":[[],["\ud83d\ude00"],["a","b","c"]],"content":"\/\u007f","sig":"` + strings.Repeat("0", 128) + `"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		ev, err := ParseEvent(raw)
		if !bytes.Equal(raw, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		verified := ev.Verify() == nil
		var theirs nostr.Event
		if theirs.UnmarshalJSON(raw) == nil {
			compareWithNostr(t, &ev, &theirs, verified)
		}
		again, err := ParseEvent(reencode(t, &ev))
		if err != nil {
			t.Fatalf("does not read back: %v", err)
		}
		if again.hash() != ev.hash() || again.ID != ev.ID || again.Sig != ev.Sig || !bytes.Equal(again.Content, ev.Content) {
			t.Fatalf("reads back as %+v, was %+v", again, ev)
		}
	})
}

func compareWithNostr(t *testing.T, ev *Event, theirs *nostr.Event, verified bool) {
	t.Helper()
	if theirs.ID != hex.EncodeToString(ev.ID[:]) || theirs.PubKey != ev.PubKey.Hex() || theirs.Sig != hex.EncodeToString(ev.Sig[:]) ||
		int64(theirs.CreatedAt) != ev.CreatedAt || theirs.Kind != ev.Kind || theirs.Content != string(ev.Content) {
		t.Fatalf("parsed %+v, go-nostr %+v", ev, theirs)
	}
	var tags [][]string
	for _, tag := range theirs.Tags {
		tags = append(tags, tag)
	}
	if !equalTags(ev.TagStrings(), tags) {
		t.Fatalf("tags %q, go-nostr %q", ev.TagStrings(), tags)
	}
	checkTags(t, ev, tags)
	ok, err := theirs.CheckSignature()
	if theirVerdict := theirs.CheckID() && ok && err == nil; theirVerdict != verified {
		t.Fatalf("verified %v, go-nostr %v", verified, theirVerdict)
	}
}

func reencode(t *testing.T, ev *Event) []byte {
	t.Helper()
	tags := ev.TagStrings()
	raw, err := json.Marshal(map[string]any{
		"id": hex.EncodeToString(ev.ID[:]), "pubkey": ev.PubKey, "created_at": ev.CreatedAt, "kind": ev.Kind,
		"tags": tags, "content": string(ev.Content), "sig": hex.EncodeToString(ev.Sig[:]),
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
