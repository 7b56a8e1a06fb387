package nostrlink

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
)

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

// A link to the exit of a name is kept while a flow goes on in a session that it
// has left.
func TestDrainOfANamedExit(t *testing.T) {
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	old := listen(t, key, relay, ListenerOptions{}, echo)
	main := linkAs(t, newKey(t).Public(), relay, LinkOptions{})
	router := main.hub.NewRouter(main, nil, LinkOptions{Mode: SessionOnly})
	defer router.Close()
	l := &sideLink{Link: linkAs(t, key.Public(), relay, LinkOptions{})}
	router.links[key.Public()] = l
	conn, err := l.DialContext(ctx, "tcp", "a.example:7")
	if err != nil {
		t.Fatal(err)
	}
	echoed(t, conn)
	young := listen(t, key, relay, ListenerOptions{}, echo)
	old.Drain()
	await.That(t, "the session is another", func() bool { return young.Sessions() == 1 && l.Status().Session.Streams == 0 })
	idle := time.Now().Add(sideIdle)
	if router.drop(l, idle) {
		t.Error("the link is dropped while it carries a flow")
	}
	echoed(t, conn)
	conn.Close()
	await.That(t, "the link is dropped", func() bool { return router.drop(l, idle) })
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
