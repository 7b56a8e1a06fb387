package session

import (
	"bytes"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestDatagrams(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "udp")
		for _, size := range []int{0, 1, 1400, 10000} {
			want := patternBytes(3, 0, size)
			if _, err := a.Write(want); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 65536)
			n, err := b.Read(got)
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("datagram of %d bytes: got %d, %v", size, n, err)
			}
		}
		if _, err := a.Write(make([]byte, 65000)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("too large: %v", err)
		}
		most := a.(*Datagrams).MaxDatagram()
		if _, err := a.Write(make([]byte, most)); err != nil {
			t.Errorf("the largest: %v", err)
		}
		if n, err := b.Read(make([]byte, 65536)); n != most || err != nil {
			t.Errorf("the largest: %d bytes of %d came, %v", n, most, err)
		}
		if _, err := a.Write(make([]byte, most+1)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("larger than the largest: %v", err)
		}
		for range 3000 { // nobody reads: the oldest go, memory is bounded
			b.Write(make([]byte, 1400))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if st := p.dialer.Stats(); st.DatagramsDropped == 0 {
			t.Errorf("nothing dropped: %+v", st)
		}
		b.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := b.Read(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		b.Close()
		time.Sleep(time.Second)
		for {
			if _, err := a.Read(make([]byte, 1)); err != nil {
				break
			}
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("wrote to a flow that is closed")
		}
		p.expectNoStreams(t)
	})
}

// A flow that nobody has used yet ends with its session, too.
func TestDatagramsOfASessionThatEnds(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		conn, err := p.dialer.DialContext(t.Context(), "udp", "example.com:53")
		if err != nil {
			t.Fatal(err)
		}
		p.dialer.Close()
		if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) && !errors.Is(err, ErrEnded) {
			t.Errorf("write: %v", err)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes", n)
		}
		conn.Close()
		p.expectNoStreams(t)
	})
}
