package nostrlink

import (
	"sync"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// notebook is a Memory.
type notebook struct {
	mu    sync.Mutex
	plain map[envelope.PublicKey]bool
}

func (n *notebook) Plain(exit envelope.PublicKey) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.plain[exit]
}

func (n *notebook) SetPlain(exit envelope.PublicKey, plain bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.plain == nil {
		n.plain = make(map[envelope.PublicKey]bool)
	}
	n.plain[exit] = plain
}

// TestRememberedExits: an exit that answered without a session is remembered, and
// is not waited for the next time, until it answers with one.
func TestRememberedExits(t *testing.T) {
	ctx, key, url := patience(t), newKey(t), startRelay(t)
	var n notebook
	n.SetPlain(key.Public(), true) // by an earlier start
	stop := startExit(t, key, url)
	link := startLinkWith(t, LinkOptions{Memory: &n, Resolver: "9.9.9.9:53"}, key.Public(), url)
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	await.That(t, "an exit that has been updated is forgotten", func() bool { return !n.Plain(key.Public()) })
	await.That(t, "its session is used", func() bool { return !link.isPlain() && link.Status().State == Connected })
	stop()

	old := newKey(t)
	startReference(t, old, url)
	link = startLinkWith(t, LinkOptions{Memory: &n, Resolver: "9.9.9.9:53"}, old.Public(), url)
	conn, err := link.DialContext(ctx, "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !n.Plain(old.Public()) {
		t.Error("an exit without a session is not remembered")
	}
}
