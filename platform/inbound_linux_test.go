package platform

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// echoServer answers every line of a connection with the same, in the calling
// thread's namespace.
func echoServer(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
}

// visitor is a connection from outside.
type visitor struct {
	conn net.Conn
	r    *bufio.Reader
	n    int
}

func (p *peer) visit(t *testing.T, address string, patience time.Duration) (*visitor, error) {
	t.Helper()
	var v *visitor
	var derr error
	p.run(t, func() error {
		var conn net.Conn
		if conn, derr = net.DialTimeout("tcp", address, patience); derr == nil {
			v = &visitor{conn: conn, r: bufio.NewReader(conn)}
			t.Cleanup(func() { conn.Close() })
		}
		return nil
	})
	return v, derr
}

// say sends a line and waits for the echo.
func (v *visitor) say(patience time.Duration) error {
	v.n++
	line := fmt.Sprintf("line %d\n", v.n)
	if err := v.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(v.conn, line); err != nil {
		return err
	}
	for {
		got, err := v.r.ReadString('\n')
		if err != nil || got == line {
			return err
		}
	}
}

const (
	long  = 20 * time.Second
	short = 300 * time.Millisecond
)

// TestInboundSurvives keeps connections from outside through every state, with
// every reverse path check.
//
// leak check 17: connections from outside, older and newer
func TestInboundSurvives(t *testing.T) {
	for _, strict := range []int{0, 1, 2} {
		t.Run(fmt.Sprintf("rp_filter %d", strict), func(t *testing.T) {
			far := enterNamespaces(t)
			must(t, writeSysctl(rpFilter, strict))
			echoServer(t, "192.0.2.2:22")
			echoServer(t, "[2001:db8::2]:22")
			var old []*visitor
			for _, a := range []string{"192.0.2.2:22", "[2001:db8::2]:22"} {
				v, err := far.visit(t, a, long)
				must(t, err)
				must(t, v.say(long))
				old = append(old, v)
			}
			openTUN(t, "nws0")
			c, err := New(stateDir(t), Options{Log: testLog(t)})
			must(t, err)
			defer c.Close()
			none := filterConfig()
			none.Device = ""
			var visitors []*visitor
			for _, state := range []struct {
				name string
				cfg  Config
			}{{"connecting", none}, {"connected", filterConfig()}, {"blocked", none}, {"connected again", filterConfig()}, {"down", Config{}}} {
				must(t, c.Set(state.cfg))
				for _, a := range []string{"192.0.2.2:22", "[2001:db8::2]:22"} {
					v, err := far.visit(t, a, long)
					if err != nil {
						t.Fatalf("%s: %s: %v", state.name, a, err)
					}
					visitors = append(visitors, v)
				}
				for i, v := range visitors {
					if err := v.say(long); err != nil {
						t.Errorf("%s: visitor %d: %v", state.name, i, err)
					}
				}
				for i, v := range old {
					if err := v.say(long); err != nil {
						t.Errorf("%s: the connection from before, %d: %v", state.name, i, err)
					}
				}
			}
		})
	}
}

// TestSessionThatSpeaksFirst is a connection from before the tunnel whose next
// packet is the machine's own.
func TestSessionThatSpeaksFirst(t *testing.T) {
	far := enterNamespaces(t)
	l, err := net.Listen("tcp", "192.0.2.2:22")
	must(t, err)
	defer l.Close()
	v, err := far.visit(t, "192.0.2.2:22", long)
	must(t, err)
	conn, err := l.Accept()
	must(t, err)
	defer conn.Close()
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	must(t, c.Set(filterConfig()))
	_, err = io.WriteString(conn, "hello\n")
	must(t, err)
	must(t, v.conn.SetDeadline(time.Now().Add(long)))
	if got, err := v.r.ReadString('\n'); got != "hello\n" {
		t.Errorf("the visitor reads %q, %v", got, err)
	}
	// Its place in the filter survives another state.
	cfg := filterConfig()
	cfg.AllowLAN = true
	must(t, c.Set(cfg))
	_, err = io.WriteString(conn, "again\n")
	must(t, err)
	if got, err := v.r.ReadString('\n'); got != "again\n" {
		t.Errorf("then the visitor reads %q, %v", got, err)
	}
}

// leak check 17: refused with the strict option
func TestInboundRefused(t *testing.T) {
	far := enterNamespaces(t)
	echoServer(t, "192.0.2.2:22")
	old, err := far.visit(t, "192.0.2.2:22", long)
	must(t, err)
	must(t, old.say(long))
	var relay net.Listener
	far.run(t, func() error {
		var err error
		relay, err = net.Listen("tcp", "203.0.113.9:7777")
		return err
	})
	defer relay.Close()
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	cfg := filterConfig()
	cfg.RefuseInbound = true
	must(t, c.Set(cfg))
	if _, err := far.visit(t, "192.0.2.2:22", short); err == nil {
		t.Error("a new connection from outside is accepted")
	}
	if err := old.say(short); err == nil {
		t.Error("a connection from before goes on")
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	conn, err := (&net.Dialer{Control: Control(0)}).DialContext(ctx, "tcp", "203.0.113.9:7777")
	must(t, err)
	conn.Close()
	must(t, c.Set(Config{}))
	v, err := far.visit(t, "192.0.2.2:22", long)
	must(t, err)
	must(t, v.say(long))
}

// TestOwnConnectionFromBefore is one that a program has opened before the tunnel
// was up: what it sends comes out of the tunnel, which ends it.
//
// leak check 13: a program's own connection from before
func TestOwnConnectionFromBefore(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	far.run(t, func() error { echoServer(t, "203.0.113.9:80"); return nil })
	conn, err := net.Dial("tcp", "203.0.113.9:80")
	must(t, err)
	defer conn.Close()
	v := &visitor{conn: conn, r: bufio.NewReader(conn)}
	must(t, v.say(long))
	wire.frames(t)
	tun := openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	must(t, c.Set(filterConfig()))
	_, err = io.WriteString(conn, "after up")
	must(t, err)
	awaitTUN(t, tun, "after up")
	if contains(wire.frames(t), "after up") {
		t.Error("it is on the wire")
	}
}

// TestAnswersOpenNothing prepares a way out from the network, for a program that
// uses the uplink's address: a packet that seems to come from where it will
// connect to.
func TestAnswersOpenNothing(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	must(t, c.Set(filterConfig()))
	far.run(t, func() error {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("203.0.113.9"), Port: 443}, Timeout: long}).Dial("tcp", "192.0.2.2:4321")
		if err == nil {
			conn.Close()
		}
		return nil
	})
	wire.frames(t)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("192.0.2.2"), Port: 4321}, Timeout: short}
	conn, err := d.Dial("tcp", "203.0.113.9:443")
	if err == nil {
		conn.Close()
		t.Error("connected")
	}
	for _, f := range wire.frames(t) {
		if len(f) > 34 && f[23] == unix.IPPROTO_TCP && bytes.Equal(f[30:34], []byte{203, 0, 113, 9}) {
			t.Errorf("a packet to the server is on the wire: %x", f)
		}
	}
}

// TestTunnelAddressIsHidden asks for the tunnel's address from the network, by
// ARP and by packets to it (CVE-2019-14899).
//
// leak check 14: packets from outside to the tunnel's address
func TestTunnelAddressIsHidden(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	wan, err := far.handle.LinkByName("wan")
	must(t, err)
	eth, err := net.InterfaceByName("eth0")
	must(t, err)
	tunnelAddr, err := netlink.ParseIPNet("198.18.0.1/32")
	must(t, err)
	must(t, far.handle.RouteAdd(&netlink.Route{LinkIndex: wan.Attrs().Index, Dst: tunnelAddr}))
	// ask sends to a closed port of the tunnel's address, and reports whether
	// ARP, or the address, answers.
	ask := func() (arp, answer bool) {
		t.Helper()
		wire.frames(t)
		// First by ARP, which precedes it; then with the neighbour known.
		far.run(t, func() error { return sendUDP("198.18.0.1:4000", "who is there") })
		for _, f := range wire.frames(t) {
			if f[12] == 8 && f[13] == 6 && f[21] == 2 && bytes.Equal(f[28:32], []byte{198, 18, 0, 1}) {
				arp = true
			}
		}
		must(t, far.handle.NeighSet(&netlink.Neigh{LinkIndex: wan.Attrs().Index, IP: net.ParseIP("198.18.0.1"), HardwareAddr: eth.HardwareAddr, State: netlink.NUD_PERMANENT}))
		far.run(t, func() error { return errors.Join(sendUDP("198.18.0.1:4000", "who is there"), sendSYN("198.18.0.1")) })
		for _, f := range wire.frames(t) {
			if len(f) > 34 && bytes.Equal(f[6:12], eth.HardwareAddr) && f[12] == 8 && f[13] == 0 && bytes.Contains(f, []byte{198, 18, 0, 1}) {
				answer = true
			}
		}
		must(t, far.handle.NeighDel(&netlink.Neigh{LinkIndex: wan.Attrs().Index, IP: net.ParseIP("198.18.0.1")}))
		return arp, answer
	}
	openTUN(t, "nws0")
	tun, err := netlink.LinkByName("nws0")
	must(t, err)
	addr, err := netlink.ParseAddr("198.18.0.1/32")
	must(t, err)
	linkUp(t, nil, "nws0")
	must(t, netlink.AddrAdd(tun, addr))
	if arp, answer := ask(); !arp || !answer {
		t.Fatalf("without a filter: ARP answers %v, the address %v", arp, answer)
	}
	must(t, netlink.AddrDel(tun, addr))
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	must(t, c.Set(filterConfig()))
	if arp, answer := ask(); arp || answer {
		t.Errorf("with the filter: ARP answers %v, the address %v", arp, answer)
	}
}

func sendUDP(dst, payload string) error {
	conn, err := net.Dial("udp", dst)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.WriteString(conn, payload)
	return err
}

// sendSYN sends a SYN-ACK out of the blue, which a host answers with a reset.
func sendSYN(dst string) error {
	seg := make([]byte, 20)
	binary.BigEndian.PutUint16(seg, 443)
	binary.BigEndian.PutUint16(seg[2:], 5555)
	seg[12], seg[13] = 5<<4, 0x12
	src, to := netip.MustParseAddr("192.0.2.1").As4(), netip.MustParseAddr(dst).As4()
	sum := uint32(unix.IPPROTO_TCP + len(seg))
	for _, part := range [][]byte{src[:], to[:], seg} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(seg[16:], ^uint16(sum+sum>>16))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: src}); err != nil {
		return err
	}
	return unix.Sendto(fd, seg, 0, &unix.SockaddrInet4{Addr: to})
}
