package compat

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip04"
	"github.com/nbd-wtf/go-nostr/nip19"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const someMessage = `{"key":"4b1da218-0e86-4b03-9714-1c416f711537","type":"DATA","data":"aGVsbG8="}`

func TestKeysSealAndOpen(t *testing.T) {
	a, b := envelopetest.NewKey(t), envelopetest.NewKey(t)
	ka, kb := NewKeys(a, 2), NewKeys(b, 2)
	for range 3 { // from nothing, from memory
		raw, id, err := ka.Seal(b.Public(), []byte(someMessage), time.Unix(1795227605, 0))
		if err != nil {
			t.Fatal(err)
		}
		in, err := kb.Open(envelopetest.Parse(t, raw))
		if err != nil || in.From != a.Public() || in.ID != id || in.CreatedAt != 1795227605 || string(in.Message.Data) != "hello" {
			t.Fatalf("%+v, %v", in, err)
		}
		if _, err := ka.Open(envelopetest.Parse(t, raw)); err == nil {
			t.Error("a reflected event opens")
		}
		for range 3 { // who push the first one out
			if _, err := kb.Open(envelopetest.Parse(t, sealed(t, envelopetest.NewKey(t), b.Public(), someMessage))); err != nil {
				t.Error(err)
			}
		}
		if n := len(kb.peers); n > 2 {
			t.Errorf("%d peers remembered", n)
		}
	}
	if _, _, err := ka.Seal(envelope.PublicKey{}, []byte("x"), time.Now()); err == nil {
		t.Error("sealed for nobody")
	}
}

func sealed(t *testing.T, from envelope.SecretKey, to envelope.PublicKey, text string) []byte {
	t.Helper()
	raw, _, err := NewKeys(from, 1).Seal(to, []byte(text), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// signed is an event as another program makes it.
func signed(t *testing.T, from envelope.SecretKey, ev nostr.Event) []byte {
	t.Helper()
	_, secret, err := nip19.Decode(from.NSec())
	if err != nil {
		t.Fatal(err)
	}
	if err := ev.Sign(secret.(string)); err != nil {
		t.Fatal(err)
	}
	raw, err := ev.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func encryptNIP04(t *testing.T, from envelope.SecretKey, to envelope.PublicKey, text string) string {
	t.Helper()
	_, secret, err := nip19.Decode(from.NSec())
	if err != nil {
		t.Fatal(err)
	}
	key, err := nip04.ComputeSharedSecret(to.Hex(), secret.(string))
	if err != nil {
		t.Fatal(err)
	}
	content, err := nip04.Encrypt(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestKeysOpenNIP04(t *testing.T) {
	a, b := envelopetest.NewKey(t), envelopetest.NewKey(t)
	k := NewKeys(b, 2)
	for range 2 {
		raw := signed(t, a, nostr.Event{Kind: envelope.KindNWS, Content: encryptNIP04(t, a, b.Public(), someMessage)})
		in, err := k.Open(envelopetest.Parse(t, raw))
		if err != nil || in.From != a.Public() || string(in.Message.Data) != "hello" {
			t.Errorf("%+v, %v", in, err)
		}
	}
}

func TestKeysRefuse(t *testing.T) {
	a, b := envelopetest.NewKey(t), envelopetest.NewKey(t)
	k := NewKeys(b, 2)
	good := sealed(t, a, b.Public(), someMessage)
	forged := envelopetest.Parse(t, good)
	forged.Sig[5] ^= 1
	if _, err := k.Open(forged); !errors.Is(err, envelope.ErrSignature) {
		t.Errorf("forged: %v", err)
	}
	for name, raw := range map[string][]byte{
		"another kind":    signed(t, a, nostr.Event{Kind: 4, Content: encryptNIP04(t, a, b.Public(), someMessage)}),
		"plain":           signed(t, a, nostr.Event{Kind: envelope.KindNWS, Content: someMessage}),
		"another's":       sealed(t, a, a.Public(), someMessage),
		"no base64":       sealed(t, a, b.Public(), `{"key":"4b1da218-0e86-4b03-9714-1c416f711537","type":"DATA","data":"GET /hello"}`),
		"no type":         sealed(t, a, b.Public(), `{"key":"4b1da218-0e86-4b03-9714-1c416f711537"}`),
		"no JSON":         sealed(t, a, b.Public(), "\xd7"),
		"NIP-04, foreign": signed(t, a, nostr.Event{Kind: envelope.KindNWS, Content: encryptNIP04(t, a, a.Public(), someMessage)}),
	} {
		if in, err := k.Open(envelopetest.Parse(t, raw)); err == nil {
			t.Errorf("%s: opened as %+v", name, in)
		}
	}
}

// Whatever a peer sends, an end takes or counts it, and stays within its
// bounds.
func FuzzReceive(f *testing.F) {
	id := wire.NewUUID()
	for _, text := range []string{
		someMessage,
		`{"key":"` + id.String() + `","type":"CONNECT","destination":"example.org:80"}`,
		`{"key":"` + id.String() + `","type":"CONNECT","data":"aGVsbG8=","destination":"google.com"}`,
		`{"key":"` + id.String() + `","type":"CONNECTR","destination":"a.nostr","entryPublicAddress":"9.9.9.9:1"}`,
		`{"key":"` + id.String() + `","type":"SOCKS5RESPONSE","data":"aGVsbG8="}`,
		`{"type":"REFUSED","refused":{"hello_nonce":"00000000000000000000000000000000","code":1}}`,
	} {
		f.Add([]byte(text), byte(0))
	}
	f.Fuzz(func(t *testing.T, plain []byte, off byte) {
		m, err := wire.ParseMessage(plain)
		if err != nil {
			return
		}
		sent := new(recorder)
		e := NewExit(sent, ExitOptions{DialBack: refuseDial})
		n := NewEntry(exitKey, sent, EntryOptions{})
		defer e.Close()
		defer n.Close()
		in := Incoming{From: exitKey, ID: newID(), CreatedAt: time.Now().Unix() + int64(int8(off)), Message: m}
		for range 2 {
			e.Receive(in)
			n.Receive(in)
		}
		if s := n.Stats(); s.Streams != 0 || s.Malformed+s.Unknown != 2 {
			t.Errorf("the entry: %+v", s)
		}
		s := e.Stats()
		if s.Malformed+s.Stale+s.Refused+s.Held+s.Opened+s.Repeated+uint64(len(e.requests)) < 2 {
			t.Errorf("the exit lost count: %+v", s)
		}
		select {
		case r := <-e.requests:
			if conn, err := r.Accept(); err == nil {
				conn.Write([]byte("x"))
				conn.Close()
			}
		default:
		}
	})
}

func FuzzDestinations(f *testing.F) {
	for _, text := range []string{"google.com", "google.com:80", "[::1]:80", "::1", "npub1x", "a.nostr", "a.nostr:80", "[a]:80", "a:b:c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := requested(text); err == nil {
			if again, err := requested(got); err != nil || again != got {
				t.Errorf("%q is %q is %q, %v", text, got, again, err)
			}
		}
		if got, err := asked(text, exitKey); err == nil {
			m := &wire.Message{Key: wire.UUID{}.String(), Type: wire.TypeConnect, Destination: got}
			plain, err := wire.AppendMessage(nil, m)
			if err != nil || len(plain) > messageFrame+len(got) {
				t.Errorf("%q makes a message of %d bytes, %v", text, len(plain), err)
			}
			if back, err := requested(got); err != nil || back != got {
				t.Errorf("%q is asked as %q, and read as %q, %v", text, got, back, err)
			}
		}
	})
}

func refuseDial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("not here")
}
