package test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// dialUDP is a connected socket of the client.
func (tun *tunnel) dialUDP(ip, port string) net.Conn {
	tun.t.Helper()
	c, err := tun.Client.DialContext(tun.ctx, "udp", net.JoinHostPort(ip, port))
	if err != nil {
		tun.t.Fatal(err)
	}
	tun.t.Cleanup(func() { c.Close() })
	return c
}

// TestDatagramSizes: what comes back is of the size that was sent, whatever it
// is, and the sizes do not run into one another.
func TestDatagramSizes(t *testing.T) {
	bothFamilies(t, connected(t), func(tun *tunnel, ip string) {
		sizes := []int{0, 1, 2, 3, 1199, 1200, 1201, 1231, 1232, 1252, 1279, 1280, 1281, 1350, 1399, 1400, 1472, 1473, 4000, 30_000}
		for size := 37; size < 1400; size += 97 {
			sizes = append(sizes, size)
		}
		c := tun.dialUDP(ip, world.PortEcho)
		for _, size := range sizes {
			if err := echoesDatagram(c, size); err != nil {
				tun.t.Errorf("%d bytes: %v", size, err)
			}
		}
	})
}

// echoesDatagram sends noise until the same comes back. What comes late of
// something sent before is passed over.
func echoesDatagram(c net.Conn, size int) error {
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	buf := make([]byte, 64<<10)
	for range 5 {
		if _, err := c.Write(want); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		for {
			n, err := c.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if bytes.Equal(buf[:n], want) {
				return nil
			}
		}
	}
	return errors.New("it does not come back")
}

// TestDatagramsInFlight does what QUIC does: full datagrams, many at a time,
// what is lost sent again.
func TestDatagramsInFlight(t *testing.T) {
	bothFamilies(t, connected(t), func(tun *tunnel, ip string) {
		const total, window = 1500, 32
		c := tun.dialUDP(ip, world.PortEcho)
		arrived := make([]bool, total)
		missing, lost := total, 0
		for missing > 0 {
			sent := 0
			for n := 0; n < total && sent < window; n++ {
				if !arrived[n] {
					sent++
					if _, err := c.Write(numbered(n)); err != nil {
						tun.t.Fatal(err)
					}
				}
			}
			for ; sent > 0 && missing > 0; sent-- {
				n, err := readNumbered(c)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					lost += sent
					break
				}
				if err != nil || n >= total {
					tun.t.Fatalf("datagram %d: %v", n, err)
				}
				if !arrived[n] {
					arrived[n] = true
					missing--
				}
			}
			if tun.ctx.Err() != nil || lost > total {
				tun.t.Fatalf("%d of %d datagrams are missing, %d got lost", missing, total, lost)
			}
		}
		tun.t.Logf("%d of %d got lost", lost, total)
	})
}

// numbered is a datagram of the size that QUIC likes.
func numbered(n int) []byte {
	return append(fmt.Appendf(nil, "%08d", n), bytes.Repeat([]byte{byte(n)}, 1342)...)
}

// readNumbered reads one, waiting for some seconds.
func readNumbered(c net.Conn) (n int, err error) {
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	k, err := c.Read(buf)
	if err != nil {
		return 0, err
	}
	n, err = strconv.Atoi(string(buf[:min(k, 8)]))
	if err == nil && !bytes.Equal(buf[:k], numbered(n)) {
		err = errors.New("it came changed")
	}
	return n, err
}

// TestDatagramTooLong: a program that sends more than the tunnel takes in one
// datagram is told so by its kernel, and goes on with less.
func TestDatagramTooLong(t *testing.T) {
	bothFamilies(t, connected(t), func(tun *tunnel, ip string) {
		for _, when := range []string{"at first", "later"} {
			c := tun.dialUDP(ip, world.PortEcho)
			if when == "later" {
				if err := echoesDatagram(c, 1000); err != nil {
					tun.t.Fatal(err)
				}
			}
			if err := sendTooLong(c); !errors.Is(err, syscall.EMSGSIZE) {
				tun.t.Errorf("%s: after a datagram that is too long: %v", when, err)
			}
			if err := echoesDatagram(c, 1000); err != nil {
				tun.t.Errorf("%s: after the error: %v", when, err)
			}
		}
	})
}

// sendTooLong sends what no event holds until it hears of an error.
func sendTooLong(c net.Conn) error {
	for range 20 {
		if _, err := c.Write(make([]byte, 60_000)); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 64<<10))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}
