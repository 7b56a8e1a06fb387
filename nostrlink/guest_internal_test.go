package nostrlink

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat/reftest"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// listen serves key on the relay with options of the test's.
func listen(t *testing.T, key envelope.SecretKey, relay string, opts ListenerOptions, handle Handle) *Listener {
	t.Helper()
	return listenOn(t, HubOptions{}, key, relay, opts, handle)
}

// listenOn is listen with options of the hub.
func listenOn(t *testing.T, via HubOptions, key envelope.SecretKey, relay string, opts ListenerOptions, handle Handle) *Listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	opts.Ready = func(string) { close(ready) }
	hub := NewHub(via)
	l := hub.NewListener(key, []string{relay}, opts)
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx, handle) })
	t.Cleanup(func() { cancel(); wg.Wait(); hub.Close() })
	<-ready
	return l
}

// linkAs serves a link with options of the test's.
func linkAs(t *testing.T, exit envelope.PublicKey, relay string, opts LinkOptions) *Link {
	t.Helper()
	return linkOn(t, HubOptions{}, exit, relay, opts)
}

// linkOn is linkAs with options of the hub.
func linkOn(t *testing.T, via HubOptions, exit envelope.PublicKey, relay string, opts LinkOptions) *Link {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub := NewHub(via)
	opts.Mode = SessionOnly
	l := hub.NewLink(exit, []string{relay}, opts)
	l.set(Connecting, nil, nil)
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait(); hub.Close() })
	return l
}

// as shows every exit the same.
func as(c Credentials) func(envelope.PublicKey) Credentials {
	return func(envelope.PublicKey) Credentials { return c }
}

func TestIdentityIsProven(t *testing.T) {
	exit, alice := newKey(t), newKey(t)
	d := newDoorman(exit, 10)
	g, err := newGreeting(exit.Public(), wishes{Credentials: Credentials{Identity: &alice, Token: "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := d.receive(helloAgain(t, g, noon), noon)
	if err != nil || a.client != (Client{alice.Public(), true}) || a.hello.Token != "secret" {
		t.Fatalf("admitted %+v, %v", a, err)
	}
	_, ev := hello(t, exit.Public(), noon)
	if a, _, err = d.receive(ev, noon); err != nil || a.client.Proven || a.client.Key != ev.PubKey {
		t.Errorf("without an identity: %+v, %v", a.client, err)
	}
}

// leak check 53: a proof of an identity that is forged, or of another exit, session or key
func TestIdentityThatIsNotProven(t *testing.T) {
	exit, other, alice := newKey(t), newKey(t), newKey(t)
	g, err := newGreeting(exit.Public(), wishes{})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := newGreeting(other.Public(), wishes{})
	if err != nil {
		t.Fatal(err)
	}
	h := func(identity string) *wire.Hello {
		return &wire.Hello{Versions: []int{wire.Version}, Nonce: g.nonce, Time: noon.Unix(), SessionKey: wire.PublicKey(g.session.Public()), Identity: identity}
	}
	proof := func(g *greeting, key envelope.SecretKey) string {
		text, err := g.prove(key, noon)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	sign := func(kind int, tags [][]string) string {
		raw, _ := envelopetest.Sign(t, alice, envelope.Template{Kind: kind, CreatedAt: noon, Tags: tags})
		return string(raw)
	}
	good := proof(g, alice)
	if key, err := proven(exit.Public(), g.hello.Public(), h(good)); err != nil || key != alice.Public() {
		t.Fatalf("%v, %v", key, err)
	}
	tags := identityTags(g.exit, g.hello.Public(), wire.PublicKey(g.session.Public()), g.nonce)
	for name, identity := range map[string]string{
		"nothing":             "x",
		"of another greeting": proof(elsewhere, alice),
		"forged":              strings.Replace(good, alice.Public().Hex(), other.Public().Hex(), 1),
		"another kind":        sign(1, tags),
		"fewer tags":          sign(envelope.KindIdentity, tags[:3]),
		"more tags":           sign(envelope.KindIdentity, append(tags[:4:4], []string{"x"})),
		"another order":       sign(envelope.KindIdentity, [][]string{tags[1], tags[0], tags[2], tags[3]}),
		"broken signature":    otherDigit(good, len(good)-3),
	} {
		if key, err := proven(exit.Public(), g.hello.Public(), h(identity)); !errors.Is(err, errIdentity) {
			t.Errorf("%s proves %v: %v", name, key, err)
		}
	}
	if _, err := proven(other.Public(), g.hello.Public(), h(good)); err == nil {
		t.Error("a proof for one exit is good for another")
	}
	if _, err := proven(exit.Public(), other.Public(), h(good)); err == nil {
		t.Error("a proof can be sent by somebody else")
	}
}

// otherDigit is text with another hexadecimal digit at a place.
func otherDigit(text string, at int) string {
	digit := "0"
	if text[at] == '0' {
		digit = "1"
	}
	return text[:at] + digit + text[at+1:]
}

// Who is let in, what is told to who is not, and who asks for a flow.
func TestAdmit(t *testing.T) {
	ctx, relay, key, alice := patience(t), startRelay(t), newKey(t), newKey(t)
	who := make(chan Client, 10)
	l := listen(t, key, relay, ListenerOptions{
		MaxSessionsPerClient: 1,
		Admit: func(c Client, token string) error {
			if !c.Proven && token != "open sesame" {
				return &wire.Error{Code: wire.CodeDenied, Text: "members only"}
			}
			return nil
		},
	}, func(ctx context.Context, req Request) {
		k, proven := req.(interface{ Client() ([32]byte, bool) }).Client()
		who <- Client{k, proven}
		echo(ctx, req)
	})
	stranger := linkAs(t, key.Public(), relay, LinkOptions{})
	if err := stranger.Connect(ctx); err == nil || !strings.Contains(err.Error(), "members only") || wire.CodeOf(err) != wire.CodeDenied {
		t.Errorf("a stranger: %v", err)
	}
	member := linkAs(t, key.Public(), relay, LinkOptions{Credentials: as(Credentials{Identity: &alice})})
	if err := member.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := member.DialContext(ctx, "tcp", "a.example:7")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, 1000)
	if c := <-who; c != (Client{alice.Public(), true}) {
		t.Errorf("the flow is of %+v", c)
	}
	again := linkAs(t, key.Public(), relay, LinkOptions{Credentials: as(Credentials{Identity: &alice})})
	if err := again.Connect(ctx); err == nil || !strings.Contains(err.Error(), "1 sessions") {
		t.Errorf("a second session: %v", err)
	}
	invited := linkAs(t, key.Public(), relay, LinkOptions{Credentials: as(Credentials{Token: "open sesame"})})
	if err := invited.Connect(ctx); err != nil {
		t.Errorf("with an invitation: %v", err)
	}
	if guests := l.Guests(); len(guests) != 2 {
		t.Errorf("guests %+v", guests)
	}
	if n := l.Stats().NotLetIn; n < 2 {
		t.Errorf("%d refusals are counted", n)
	}
	// Who is turned out is told why.
	open, err := member.DialContext(ctx, "tcp", "a.example:7")
	if err != nil {
		t.Fatal(err)
	}
	<-who
	l.TurnOut(func(c Client) error {
		if c.Proven {
			return &wire.Error{Code: wire.CodeDenied, Text: "you are banned"}
		}
		return nil
	})
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a flow of who was turned out: %v", err)
	}
	if len(l.Guests()) > 2 { // the member may be back already, as nothing bans her here
		t.Errorf("guests %+v", l.Guests())
	}
}

// Greetings that come at once are not let in beyond the bound on one's sessions.
func TestSessionsThatArriveTogether(t *testing.T) {
	hub := NewHub(HubOptions{})
	defer hub.Close()
	l := hub.NewListener(newKey(t), nil, ListenerOptions{MaxSessionsPerClient: 2})
	alice, bob := &admission{client: Client{Key: newKey(t).Public()}}, &admission{client: Client{Key: newKey(t).Public()}}
	var no *refusal
	for n, a := range []*admission{alice, alice, bob} {
		if err := l.admitGuest(t.Context(), a); err != nil {
			t.Fatalf("session %d: %v", n, err)
		}
	}
	if err := l.admitGuest(t.Context(), alice); !errors.As(err, &no) {
		t.Errorf("a third session at once: %v", err)
	}
	l.hasArrived(alice.client)
	if err := l.admitGuest(t.Context(), alice); err != nil {
		t.Errorf("after one came to nothing: %v", err)
	}
	for range 2 {
		l.hasArrived(alice.client)
	}
	l.hasArrived(bob.client)
	if len(l.arriving) != 0 {
		t.Errorf("%d clients are waited for", len(l.arriving))
	}
}

// Who was killed, or has lost its network, comes back at once, however few sessions
// it may have. Who is there cannot be pushed out, not even by itself.
func TestSilentSessionsMakeRoom(t *testing.T) {
	ctx, key, alice := patience(t), newKey(t), newKey(t)
	server := relayd.New(relayd.Options{})
	near := httptest.NewServer(server)
	t.Cleanup(func() { server.Close(); near.Close() })
	nearURL, far := "ws"+strings.TrimPrefix(near.URL, "http"), startRelay(t)
	serve, end := context.WithCancel(ctx)
	hub := NewHub(HubOptions{})
	ready := make(chan struct{}, 2)
	exit := hub.NewListener(key, []string{nearURL, far}, ListenerOptions{MaxSessionsPerClient: 1, Ready: func(string) { ready <- struct{}{} }})
	var serving sync.WaitGroup
	serving.Go(func() { exit.Serve(serve, echo) })
	t.Cleanup(func() { end(); serving.Wait(); hub.Close() })
	<-ready
	<-ready
	options := LinkOptions{Credentials: as(Credentials{Identity: &alice})}
	if err := linkAs(t, key.Public(), nearURL, options).Connect(ctx); err != nil {
		t.Fatal(err)
	}
	connect := func() error {
		hub := NewHub(HubOptions{})
		defer hub.Close()
		options := options
		options.Mode = SessionOnly
		up, err := hub.NewLink(key.Public(), []string{far}, options).open(ctx)
		if err == nil {
			up.close()
		}
		return err
	}
	if err := connect(); err == nil || !strings.Contains(err.Error(), "you have 1 sessions") {
		t.Fatalf("beside a session that lives: %v", err)
	}
	server.Close()
	near.Close()
	if err := connect(); err != nil {
		t.Errorf("when nothing is heard of the other session: %v", err)
	}
}

// What an exit may say of itself is counted, in a map that it cannot fill.
func TestRefusals(t *testing.T) {
	var r refusals
	r.count(&wire.Error{Code: wire.CodeRefused, Text: "the destination's business"})
	if n := r.byText(); len(n) != 0 {
		t.Errorf("counted %v", n)
	}
	for range 3 {
		r.count(&wire.Error{Code: wire.CodeDenied, Text: "port 25 is closed\nat this exit"})
	}
	for i := range 1000 {
		r.count(&wire.Error{Code: wire.CodeBusy, Text: strings.Repeat("x", i)})
	}
	n := r.byText()
	if len(n) != maxRefusals+1 || n[otherRefusals] != 1000-maxRefusals+1 {
		t.Errorf("%d texts, %d others", len(n), n[otherRefusals])
	}
	for text, times := range n {
		if strings.Contains(text, "port 25") && (strings.ContainsAny(text, "\n") || times != 3) {
			t.Errorf("%q: %d", text, times)
		}
	}
}

// A link shows credentials to the exit that they are for, a router to no other.
func TestCredentialsAreForOneExit(t *testing.T) {
	ctx, relay, mine, other, alice := patience(t), startRelay(t), newKey(t), newKey(t), newKey(t)
	seen := make(chan Client, 10)
	tokens := make(chan string, 10)
	opts := ListenerOptions{Admit: func(c Client, token string) error {
		seen <- c
		tokens <- token
		return nil
	}}
	listen(t, mine, relay, opts, echo)
	listen(t, other, relay, opts, echo)
	only := LinkOptions{Mode: SessionOnly, Credentials: func(exit envelope.PublicKey) Credentials {
		if exit != mine.Public() {
			return Credentials{}
		}
		return Credentials{Identity: &alice, Token: "secret"}
	}}
	main := linkAs(t, mine.Public(), relay, only)
	if err := main.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if c, token := <-seen, <-tokens; c != (Client{alice.Public(), true}) || token != "secret" {
		t.Errorf("the exit sees %+v, %q", c, token)
	}
	router := main.hub.NewRouter(main, []string{relay}, only)
	defer router.Close()
	host := name.Name{Key: other.Public(), Relays: []string{relay}}.Host()
	conn, err := router.DialContext(ctx, "tcp", host+":80")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if c, token := <-seen, <-tokens; c.Proven || token != "" {
		t.Errorf("another exit sees %+v, %q", c, token)
	}
}

// Entries without a session are let in flow by flow, and turned out.
func TestAdmitWithoutASession(t *testing.T) {
	url, key := startRelay(t), newKey(t)
	var banned atomic.Bool
	admit := func(c Client, _ string) error {
		if !c.Proven || banned.Load() {
			return errors.New("banned")
		}
		return nil
	}
	causes := make(chan error, 10)
	l := listen(t, key, url, ListenerOptions{Admit: admit}, func(ctx context.Context, req Request) {
		conn, err := req.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if k, proven := req.(interface{ Client() ([32]byte, bool) }).Client(); !proven || k == [32]byte{} {
			t.Error("nobody asks")
		}
		causes <- nil
		<-ctx.Done()
		causes <- context.Cause(ctx)
	})
	entry := reftest.Entry{Exit: key.Public(), Relay: reference(t, url)}
	if _, err := entry.Dial("example.com:80"); err != nil {
		t.Fatal(err)
	}
	<-causes
	banned.Store(true)
	l.TurnOut(func(c Client) error { return admit(c, "") })
	if err := <-causes; err == nil || err.Error() != "banned" {
		t.Errorf("turned out for %v", err)
	}
	if _, err := entry.Dial("example.com:80"); err != nil {
		t.Fatal(err) // nothing tells
	}
	await.That(t, "the next one is not let in", func() bool { return l.Stats().NotLetIn == 1 })
}
