package session

import (
	"context"
	"io"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// TestGoAwayFrame holds that the listener's wish is said once, again when it was
// lost, and changes nothing else.
func TestGoAwayFrame(t *testing.T) {
	p := openedPeer(t)
	said := func() int { return len(p.sent(wire.FrameGoAway)) }
	p.core.goAway()
	p.core.goAway()
	if n := said(); n != 1 {
		t.Fatalf("said %d times", n)
	}
	lost := p.core.ring.next - 1
	for said() == 1 { // until it is found to be lost
		p.now = p.core.deadline(p.now)
		p.core.tick(p.now)
		if p.flush(); p.core.err != nil {
			t.Fatal(p.core.err)
		}
		if last := p.core.ring.next - 1; last > lost {
			p.send(ackFrame(wire.AckRange{Smallest: last, Largest: last}))
		}
	}
	last := p.core.ring.next - 1
	p.send(ackFrame(wire.AckRange{Smallest: last, Largest: last}))
	p.core.goAway()
	p.send(openFrame(2))
	if p.core.nextRequest() == nil {
		t.Error("no stream is taken any more")
	}
	if n := said(); n != 2 {
		t.Errorf("said %d times", n)
	}
}

func TestGoAway(t *testing.T) {
	p := newPair(t, 0, Config{})
	near, far := p.dial(t, "tcp")
	p.dialer.GoAway() // is not its to say
	p.listener.GoAway()
	<-p.dialer.GoingAway()
	select {
	case <-p.listener.GoingAway():
		t.Error("the dialer goes away")
	default:
	}
	other, end := p.dial(t, "udp")
	other.Close()
	end.Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	p.dialer.AwaitIdle(ended) // does not hang
	idle := make(chan struct{})
	go func() {
		p.dialer.AwaitIdle(context.Background())
		close(idle)
	}()
	if _, err := near.Write([]byte("goes on")); err != nil {
		t.Fatal(err)
	}
	near.(*Stream).CloseWrite()
	if got, err := io.ReadAll(far); err != nil || string(got) != "goes on" {
		t.Errorf("got %q, %v", got, err)
	}
	select {
	case <-idle:
		t.Error("idle with a stream half open")
	default:
	}
	far.Close()
	near.Close()
	<-idle
	p.listener.Close()
	p.dialer.AwaitIdle(context.Background()) // nor without a session
}
