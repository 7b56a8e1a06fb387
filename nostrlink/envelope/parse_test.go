package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"
)

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
