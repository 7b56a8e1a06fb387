package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// Probe stands in for programs that the machine does not have. It is meant to
// run as a process of its own and returns its exit code, which is curl's 7 when
// the connection was refused.
//
//	http [-o FILE] [-T FILE] URL     as curl
//	dns [-s SERVER:PORT] NAME TYPE   as dig +short; TYPE is A, AAAA or TXT
//	tcp HOST PORT                    as nc
//	ping ADDRESS                     as ping -c 1, IPv4; needs root
func Probe(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(errOut, "probe: say which: http, dns, tcp or ping")
		return 2
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(errOut)
	output := flags.String("o", "", "write the answer to a file")
	upload := flags.String("T", "", "send a file")
	server := flags.String("s", "", "ask this server")
	if flags.Parse(args[1:]) != nil {
		return 2
	}
	var err error
	switch rest := flags.Args(); {
	case args[0] == "http" && len(rest) == 1:
		err = probeHTTP(ctx, rest[0], *output, *upload, out)
	case args[0] == "dns" && len(rest) == 2:
		err = probeDNS(ctx, *server, rest[0], rest[1], out)
	case args[0] == "tcp" && len(rest) == 2:
		err = probeTCP(ctx, net.JoinHostPort(rest[0], rest[1]), in, out)
	case args[0] == "ping" && len(rest) == 1:
		err = probePing(ctx, rest[0], out)
	default:
		fmt.Fprintf(errOut, "probe: %s: wrong arguments\n", args[0])
		return 2
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(errOut, "probe:", err)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return 7
	}
	return 1
}

func probeHTTP(ctx context.Context, url, output, upload string, out io.Writer) error {
	method, body := http.MethodGet, io.Reader(nil)
	if upload != "" {
		f, err := os.Open(upload)
		if err != nil {
			return err
		}
		defer f.Close()
		method, body = http.MethodPost, f
	}
	if output != "" {
		f, err := os.Create(output)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	_, err = io.Copy(out, resp.Body)
	return err
}

func probeDNS(ctx context.Context, server, name, kind string, out io.Writer) error {
	r := &net.Resolver{PreferGo: true}
	if server != "" {
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	name = strings.TrimSuffix(name, ".") + "."
	if kind == "TXT" {
		texts, err := r.LookupTXT(ctx, name)
		for _, t := range texts {
			fmt.Fprintf(out, "%q\n", t)
		}
		return err
	}
	network := map[string]string{"A": "ip4", "AAAA": "ip6"}[kind]
	if network == "" {
		return fmt.Errorf("type %s: A, AAAA or TXT", kind)
	}
	addrs, err := r.LookupNetIP(ctx, network, name)
	for _, a := range addrs {
		fmt.Fprintln(out, a.Unmap())
	}
	return err
}

func probeTCP(ctx context.Context, address string, in io.Reader, out io.Writer) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.Copy(c, in); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(out, c)
	return err
}

// probePing sends one ICMP echo request and waits for its reply. (RFC 792)
func probePing(ctx context.Context, address string, out io.Writer) error {
	to, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	conn, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	id := os.Getpid() & 0xffff
	request := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("nws-vpn probe")}}
	packet, err := request.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		m, err := icmp.ParseMessage(ipv4.ICMPTypeEcho.Protocol(), buf[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == id {
			_, err := fmt.Fprintln(out, "reply from", from)
			return err
		}
	}
}
