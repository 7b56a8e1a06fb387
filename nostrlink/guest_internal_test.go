package nostrlink

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat/reftest"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// listen serves key on the relay with options of the test's.
func listen(t *testing.T, key envelope.SecretKey, relay string, opts ListenerOptions, handle Handle) *Listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	opts.Ready = func(string) { close(ready) }
	hub := NewHub(HubOptions{})
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
	ctx, cancel := context.WithCancel(context.Background())
	hub := NewHub(HubOptions{})
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
		"broken signature":    good[:len(good)-4] + "00\"}",
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

// An exit that drains leaves greetings to another one with the same key. Its
// entries go there with their next flows, and none of those fails; the flows that
// are open go on.
func TestDrain(t *testing.T) {
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	old := listen(t, key, relay, ListenerOptions{}, echo)
	link := linkAs(t, key.Public(), relay, LinkOptions{})
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	flow := func() net.Conn {
		conn, err := link.DialContext(ctx, "tcp", "a.example:7")
		if err != nil {
			t.Fatal(err)
		}
		echoed(t, conn)
		return conn
	}
	first := flow()
	old.Drain()
	flow().Close() // nobody else is there yet
	young := listen(t, key, relay, ListenerOptions{}, echo)
	for range 3 {
		after := linkAs(t, key.Public(), relay, LinkOptions{})
		if err := after.Connect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for young.Sessions() < 4 {
		flow().Close()
	}
	flow().Close()
	echoed(t, first)
	if old.Sessions() != 1 || young.Sessions() != 4 {
		t.Errorf("%d sessions at the old one, %d at the new one", old.Sessions(), young.Sessions())
	}
	first.Close()
	await.That(t, "the old session is left", func() bool { return old.Sessions() == 0 })
	flow().Close()
}

// echoed holds that a flow works, and leaves it open.
func echoed(t *testing.T, conn net.Conn) {
	t.Helper()
	said, heard := []byte("said"), make([]byte, 4)
	if _, err := conn.Write(said); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(conn, heard); err != nil || !bytes.Equal(said, heard) {
		t.Errorf("%q came back, %v", heard, err)
	}
}

// An exit that goes away in every session it grants is followed so far only.
func TestDrainingForEver(t *testing.T) {
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	exit := listen(t, key, relay, ListenerOptions{}, echo)
	link := linkAs(t, key.Public(), relay, LinkOptions{})
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	var flows []net.Conn
	for n := range maxLeaving + 1 {
		conn, err := link.DialContext(ctx, "tcp", "a.example:7")
		if err != nil {
			t.Fatal(err)
		}
		flows = append(flows, conn)
		exit.Drain()
		exit.draining.Store(false) // and greetings are answered all the same
		if n < maxLeaving {
			await.That(t, "there is another session", func() bool { return exit.Sessions() == n+2 })
			await.That(t, "it is the link's", func() bool { return link.Status().Session.Streams == 0 })
		}
	}
	for _, conn := range flows {
		echoed(t, conn)
	}
	if n := exit.Sessions(); n != maxLeaving+1 {
		t.Errorf("%d sessions", n)
	}
	flows[0].Close() // makes room for one more
	await.That(t, "the last session is left", func() bool { return link.Status().Session.Streams == 0 })
	for _, conn := range flows[1:] {
		echoed(t, conn)
	}
}

func TestToll(t *testing.T) {
	key := newKey(t)
	now := noon
	event := func() *envelope.Event {
		raw, _ := envelopetest.Sign(t, key, envelope.Template{Kind: 1, CreatedAt: now, Content: []byte(now.String())})
		return envelopetest.Parse(t, raw)
	}
	lazy := event()
	for envelope.Work(lazy.ID) >= 8 {
		now = now.Add(time.Nanosecond)
		lazy = event()
	}
	tl := &toll{busy: 100}
	// A flood begins: not a second of it passes.
	sudden, passed := &toll{busy: 50}, 0
	for range 1000 {
		if sudden.pass(lazy, now) {
			passed++
		}
	}
	if passed > 51+maxTold || sudden.asked() != firstWork {
		t.Errorf("%d pass at once, %d bits are asked for", passed, sudden.asked())
	}
	// flood offers events for a second and returns how many pass.
	flood := func(n int, ev *envelope.Event) (passed int) {
		for range n {
			now = now.Add(time.Second / time.Duration(n))
			if tl.pass(ev, now) {
				passed++
			}
		}
		return passed
	}
	if n := flood(90, lazy); n != 90 || tl.asked() != 0 {
		t.Errorf("%d of 90 pass, %d bits are asked for", n, tl.asked())
	}
	flood(300, lazy)
	if n := flood(300, lazy); n > 100+maxTold || tl.asked() != firstWork {
		t.Errorf("%d of a flood pass, %d bits are asked for", n, tl.asked())
	}
	// The flood goes on: so does the toll. An id that only looks like work is none.
	fake := *lazy
	fake.ID = [32]byte{}
	for range 5 {
		if n := flood(300, &fake); n > maxTold {
			t.Errorf("%d pass with forged ids", n)
		}
	}
	if tl.asked() != firstWork {
		t.Errorf("those who do not work raise the toll for the others to %d", tl.asked())
	}
	for range 5 {
		flood(2, lazy)
	}
	if tl.asked() != 0 {
		t.Errorf("%d bits are asked for when all is calm", tl.asked())
	}
	// Those who work and are too many all the same work more, up to a bound.
	tl.work = firstWork
	for range 10 {
		tl.paid = 1000
		now = now.Add(time.Second)
		tl.turn(now)
	}
	if tl.asked() != mostWork {
		t.Errorf("%d bits are asked for", tl.asked())
	}
}

// Who fills the room slowly pays as well, more the less is left.
func TestTollOfACrowd(t *testing.T) {
	full := 0.0
	tl := &toll{busy: 100, full: func() float64 { return full }}
	last := -1
	for _, full = range []float64{0.4, 0.6, 0.8, 0.95} {
		if w := tl.asked(); w <= last || w > mostWork {
			t.Errorf("%d bits when %.0f %% is taken", w, 100*full)
		} else {
			last = w
		}
	}
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	l := listen(t, key, relay, ListenerOptions{MaxSessions: 4}, echo)
	for range 4 {
		if err := linkAs(t, key.Public(), relay, LinkOptions{}).Connect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if l.toll.asked() < firstWork {
		t.Errorf("%d bits are asked for when all sessions are taken", l.toll.asked())
	}
}

// An entry does the work that an exit under load asks for.
func TestWorkForAnAnswer(t *testing.T) {
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	l := listen(t, key, relay, ListenerOptions{MinWork: firstWork}, echo)
	link := linkAs(t, key.Public(), relay, LinkOptions{})
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Busy == 0 {
		t.Errorf("nobody was asked for work: %+v", s)
	}
	g, err := newGreeting(key.Public(), wishes{})
	if err != nil {
		t.Fatal(err)
	}
	if g.doesWork(&RefusedError{Err: errors.New("x"), Work: mostWork + 1}) || g.doesWork(&RefusedError{Err: errors.New("x")}) || g.doesWork(errors.New("x")) {
		t.Error("any work is done")
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

// Strangers who greet faster than they can be listened to keep nobody out who is
// in, nor take all sessions.
func TestFloodOfGreetings(t *testing.T) {
	ctx, url, key := patience(t), startRelay(t), newKey(t)
	l := listen(t, key, url, ListenerOptions{MaxSessions: 100, Busy: 20}, echo)
	link := linkAs(t, key.Public(), url, LinkOptions{})
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := link.DialContext(ctx, "tcp", "a.example:7")
	if err != nil {
		t.Fatal(err)
	}
	c, err := relay.Dial(ctx, url, relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 1500
	for range n {
		g, err := newGreeting(key.Public(), wishes{})
		if err != nil {
			t.Fatal(err)
		}
		event, id, err := g.event(ctx, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(ctx, event, id, nil); err != nil {
			t.Fatal(err)
		}
	}
	roundTrip(t, conn, 1_000_000)
	late := linkAs(t, key.Public(), url, LinkOptions{})
	if err := late.Connect(ctx); err != nil {
		t.Errorf("who works for it does not get in: %v", err)
	}
	if s := l.Stats(); s.Greetings < n || s.Unpaid == 0 {
		t.Errorf("%+v", s)
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
