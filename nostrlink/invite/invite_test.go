package invite

import (
	"encoding/base32"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func sample(t testing.TB) Invite {
	t.Helper()
	key := envelopetest.NewKey(t)
	return Invite{
		Exit:  name.Name{Key: key.Public(), Relays: []string{"wss://relay.example", "ws://192.0.2.1:7777"}},
		Token: NewToken(), As: "home",
	}
}

func TestEncodeAndParse(t *testing.T) {
	i := sample(t)
	text, err := i.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"as it is": text, "capital letters": strings.ToUpper(text), "in two lines": " " + text[:30] + "\r\n  " + text[30:] + "\n",
	} {
		got, err := Parse(s)
		if err != nil || !reflect.DeepEqual(got, i) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	token, err := ParseToken(i.Token.Text())
	if err != nil || token != i.Token {
		t.Errorf("token %v", err)
	}
	if s := fmt.Sprintf("%v %+v", i.Token, i); strings.Contains(s, i.Token.Text()) {
		t.Error("the token is printed")
	}
}

// raw encodes what Encode would not.
func raw(body []byte) string {
	return prefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(append(body, sum(body)...))
}

func TestHostileInvites(t *testing.T) {
	good := sample(t)
	change := func(f func(i *Invite)) string {
		i := good
		f(&i)
		b := append([]byte{version}, i.Exit.Key[:]...)
		b = append(b, i.Token[:]...)
		b = appendText(b, i.As)
		b = append(b, byte(len(i.Exit.Relays)))
		for _, relay := range i.Exit.Relays {
			b = appendText(b, relay)
		}
		return raw(b)
	}
	if _, err := Parse(change(func(*Invite) {})); err != nil {
		t.Fatal(err)
	}
	as := func(s string) string { return change(func(i *Invite) { i.As = s }) }
	relays := func(urls ...string) string { return change(func(i *Invite) { i.Exit.Relays = urls }) }
	text, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"nothing":             "",
		"an npub":             good.Exit.NPub(),
		"cut":                 text[:len(text)-8],
		"a letter changed":    text[:20] + strings.Map(func(r rune) rune { return map[bool]rune{true: 'c', false: 'b'}[r == 'b'] }, text[20:21]) + text[21:],
		"not base 32":         text + "!",
		"another version":     raw([]byte{9, 1, 2}),
		"empty body":          raw([]byte{version}),
		"body cut":            raw(append([]byte{version}, make([]byte, 40)...)),
		"length beyond":       raw(append(append([]byte{version}, make([]byte, 48)...), 200)),
		"no key":              change(func(i *Invite) { i.Exit.Key = [32]byte{} }),
		"no token":            change(func(i *Invite) { i.Token = Token{} }),
		"path as name":        as("../../etc/passwd"),
		"slash":               as("a/b"),
		"dot":                 as("."),
		"line end in name":    as("a\nb"),
		"escape in name":      as("\x1b[2J"),
		"capital in name":     as("Home"),
		"long name":           as(strings.Repeat("a", 64)),
		"npub as name":        as(good.Exit.NPub()),
		"hyphen first":        as("-rf"),
		"no relay":            relays(),
		"many relays":         relays(strings.Split(strings.Repeat("wss://relay.example ", 9)[:9*20-1], " ")...),
		"no relay's address":  relays("file:///etc/passwd"),
		"http":                relays("https://relay.example"),
		"line end in a relay": relays("wss://relay.example/\nexit = \"x\""),
		"quote in a relay":    relays("wss://relay.example/\"x"),
		"something behind":    raw(append([]byte{version}, make([]byte, 300)...)),
		"long":                prefix + strings.Repeat("a", 3*maxText),
	} {
		if i, err := Parse(s); err == nil {
			t.Errorf("%s is read: %+v", name, i)
		} else if token := good.Token.Text(); strings.Contains(err.Error(), token) || len(err.Error()) > 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := good
	bad.Exit.Relays = nil
	if _, err := bad.Encode(); err == nil {
		t.Error("an invitation without a relay is written")
	}
}

func FuzzParse(f *testing.F) {
	i := sample(f)
	text, err := i.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(raw([]byte{version}))
	f.Fuzz(func(t *testing.T, s string) {
		i, err := Parse(s)
		if err != nil {
			return
		}
		again, err := i.Encode()
		if err != nil {
			t.Fatalf("%+v is read and cannot be written: %v", i, err)
		}
		if back, err := Parse(again); err != nil || !reflect.DeepEqual(back, i) {
			t.Fatalf("%+v becomes %+v, %v", i, back, err)
		}
	})
}
