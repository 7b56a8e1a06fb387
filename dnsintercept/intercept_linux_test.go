package dnsintercept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/labtest"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/tun"
)

// sayAddress is a Dialer whose connections say what was dialled, and end.
type sayAddress struct{}

func (sayAddress) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		fmt.Fprintf(there, "%s %s", network, address)
		there.Close()
	}()
	return here, nil
}

// machine is a host whose default route is a TUN device served by i.
func machine(t *testing.T, i *Interceptor) *netlab.Host {
	t.Helper()
	host := labtest.Host(t, "machine")
	var dev tun.Device
	if err := host.Do(func() (err error) { dev, err = tun.Open("nws0", 1420); return err }); err != nil {
		t.Fatal(err)
	}
	if err := host.LeadInto("nws0", "198.18.0.1/32", "fd6e:7773:7670::1/128"); err != nil {
		dev.Close()
		t.Fatal(err)
	}
	handler := i.Handler(netstack.Forward(i.Dialer(sayAddress{}), netstack.ForwardOptions{}))
	stack, err := netstack.New(dev, handler, netstack.Options{})
	if err != nil {
		dev.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Close() })
	return host
}

// dial connects from the host's programs.
func dial(t *testing.T, host *netlab.Host, network, address string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := host.DialContext(ctx, network, address)
	if err == nil {
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return conn, err
}

// exchange asks one question of one server.
func exchange(t *testing.T, host *netlab.Host, network, server string, a ask) dnsmessage.Message {
	t.Helper()
	conn, err := dial(t, host, network, server)
	if err != nil {
		t.Fatal(err)
	}
	c := client{Conn: conn, t: t}
	if network == "udp" {
		c.send(a.pack(t))
		return c.recv()
	}
	sendFrame(t, conn, a.pack(t))
	return c.recvFrame()
}

func TestOnAMachine(t *testing.T) {
	i := newInterceptor(t, upstreamFunc(echo), Options{})
	host := machine(t, i)
	var fake [2]netip.Addr
	for n, server := range []string{"198.18.0.2:53", "9.9.9.9:53", "[fd6e:7773:7670::2]:53", "[2001:db8::1]:53"} {
		for _, network := range []string{"udp", "tcp"} {
			m := exchange(t, host, network, server, ask{host: "blog.nostr", kind: dnsmessage.TypeA, id: uint16(n)})
			if len(m.Answers) != 1 || m.ID != uint16(n) {
				t.Fatalf("%s %s: %+v", network, server, m)
			}
			fake[0] = netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A)
			m = exchange(t, host, network, server, ask{host: "example.com", kind: dnsmessage.TypeTXT, size: 1232})
			if len(m.Answers) != 2 {
				t.Errorf("%s %s: %+v", network, server, m)
			}
		}
	}
	m := exchange(t, host, "udp", "9.9.9.9:53", ask{host: "blog.nostr", kind: dnsmessage.TypeAAAA})
	fake[1] = netip.AddrFrom16(m.Answers[0].Body.(*dnsmessage.AAAAResource).AAAA)

	for address, want := range map[string]string{
		netip.AddrPortFrom(fake[0], 80).String(): "tcp " + testKey + ":80",
		netip.AddrPortFrom(fake[1], 53).String(): "", // a DNS server like any other
		netip.AddrPortFrom(fake[1], 81).String(): "tcp " + testKey + ":81",
		"192.0.2.1:82":                           "tcp 192.0.2.1:82",
	} {
		if want == "" {
			if m := exchange(t, host, "tcp", address, ask{host: "blog.nostr", kind: dnsmessage.TypeA}); len(m.Answers) != 1 {
				t.Errorf("%s: %+v", address, m)
			}
			continue
		}
		conn, err := dial(t, host, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", address, got, err, want)
		}
	}
	for _, address := range []string{"198.18.77.77:80", "198.18.0.2:853", "[fd6e:7773:7670:1::7777]:80"} {
		if _, err := dial(t, host, "tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s stands for nothing: %v", address, err)
		}
	}
}

func TestOnAMachineFlowsAreBounded(t *testing.T) {
	i := newInterceptor(t, upstreamFunc(echo), Options{Flows: 1})
	host := machine(t, i)
	for range cap(i.streams) {
		i.streams <- struct{}{}
	}
	i.flows <- struct{}{}
	if _, err := dial(t, host, "tcp", "9.9.9.9:53"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("one connection too many: %v", err)
	}
	conn, err := dial(t, host, "udp", "9.9.9.9:53")
	if err != nil {
		t.Fatal(err)
	}
	client{Conn: conn, t: t}.send(ask{host: "blog.nostr", kind: dnsmessage.TypeA}.pack(t))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("one flow too many: %v", err)
	}
}

func TestOnAMachineTheServerAnswersPings(t *testing.T) {
	ping, err := exec.LookPath("ping")
	if err != nil {
		t.Skip("needs the program ping")
	}
	host := machine(t, newInterceptor(t, upstreamFunc(echo), Options{}))
	for address, want := range map[string]string{
		"198.18.0.2": "1 received", "fd6e:7773:7670::2": "1 received", "198.18.77.77": "Destination Host Unreachable",
	} {
		result, err := host.Run(t.Context(), netlab.CommandOptions{}, ping, "-n", "-c", "1", "-W", "10", address)
		if err != nil || !strings.Contains(result.Output, want) {
			t.Errorf("ping %s: %v, want %q in\n%s", address, err, want, result.Output)
		}
	}
}

// leak check 42: port 853
func TestOnAMachineDNSOverTLS(t *testing.T) {
	for refuse, want := range map[bool]error{false: nil, true: syscall.ECONNREFUSED} {
		host := machine(t, newInterceptor(t, upstreamFunc(echo), Options{RefuseTLS: refuse}))
		if _, err := dial(t, host, "tcp", "9.9.9.9:853"); !errors.Is(err, want) {
			t.Errorf("refused %v: TCP to port 853: %v", refuse, err)
		}
		conn, err := dial(t, host, "udp", "9.9.9.9:853")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := conn.Read(b)
		if !errors.Is(err, want) || want == nil && string(b[:n]) != "udp 9.9.9.9:853" {
			t.Errorf("refused %v: UDP to port 853: %q, %v", refuse, b[:n], err)
		}
	}
}

// TestOnAMachineSearchDomains has libc look for a name in two domains.
func TestOnAMachineSearchDomains(t *testing.T) {
	getent, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("needs the program getent")
	}
	host := machine(t, newInterceptor(t, upstreamFunc(func(_ context.Context, query []byte) ([]byte, error) {
		q, err := parseQuery(query)
		if err != nil {
			return nil, err
		}
		if q.host == "printer.corp.lan" && q.kind == dnsmessage.TypeA {
			return q.reply(dnsmessage.RCodeSuccess, &record{dnsmessage.TypeA, []byte{10, 1, 2, 3}}, headerLen, 5), nil
		}
		return q.reply(dnsmessage.RCodeNameError, nil, headerLen, 5), nil
	}), Options{}))
	err = host.WriteFile("/etc/resolv.conf", []byte("search foo corp.lan\nnameserver 198.18.0.2\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"printer": "10.1.2.3", "blog.nostr": "198.1", "unknown.nostr": ""} {
		result, err := host.Run(t.Context(), netlab.CommandOptions{}, getent, "-s", "hosts:dns", "ahostsv4", name)
		if err != nil || !strings.HasPrefix(result.Output, want) || want == "" && result.Output != "" {
			t.Errorf("%s: %q, %v", name, result.Output, err)
		}
	}
}
