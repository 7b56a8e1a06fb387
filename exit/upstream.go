package exit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Nameserver is a server that names are asked of: in the clear, as the zero
// Protocol says, over TLS (RFC 7858) or over HTTPS (RFC 8484).
type Nameserver struct {
	Protocol string         // "", "tls" or "https"
	Addr     netip.AddrPort // or invalid: Host is looked up by the system
	Host     string         // whom the certificate must be for; "" for Protocol ""
	Port     uint16         // for Host without Addr
	Path     string         // for https
}

// ParseNameserver reads 9.9.9.9, [2620:fe::fe]:5353, tls://dns.example,
// tls://dns.example@192.0.2.1:853 or https://dns.example@192.0.2.1/dns-query.
// With a name alone, the system's resolver finds the server.
func ParseNameserver(s string) (Nameserver, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		ap, err := parseServerAddr(s, dnsPort)
		if err != nil {
			return Nameserver{}, fmt.Errorf("want an IP address, with or without a port, such as 9.9.9.9 or [2620:fe::fe]:53, or tls://NAME@IP or https://NAME@IP/dns-query, not %q", s)
		}
		return Nameserver{Addr: ap}, nil
	}
	n := Nameserver{Protocol: scheme}
	switch scheme {
	case "tls":
		n.Port = 853
	case "https":
		n.Port = 443
		rest, n.Path, _ = strings.Cut(rest, "/")
		n.Path = "/" + n.Path
		if n.Path == "/" {
			n.Path = "/dns-query"
		}
	default:
		return Nameserver{}, fmt.Errorf("%q: a name server is asked over tls:// or https://, or plainly by its IP address", s)
	}
	host, at, pinned := strings.Cut(rest, "@")
	if !pinned {
		at = host
	}
	if ap, err := parseServerAddr(at, n.Port); err == nil {
		n.Addr, n.Port = ap, 0
		if !pinned {
			host = ap.Addr().String()
		}
	} else if pinned {
		return Nameserver{}, fmt.Errorf("%q: want an IP address after the @, not %q", s, at)
	} else if name, port, err := net.SplitHostPort(host); err == nil {
		var p uint16
		if _, err := fmt.Sscanf(port, "%d", &p); err != nil || p == 0 || fmt.Sprint(p) != port {
			return Nameserver{}, fmt.Errorf("%q: %q is no port", s, port)
		}
		host, n.Port = name, p
	}
	if n.Host = strings.ToLower(host); !isHostName(n.Host) && !isAddr(n.Host) {
		return Nameserver{}, fmt.Errorf("%q: %q is no host name", s, host)
	}
	return n, nil
}

func parseServerAddr(s string, port uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil && !a.IsUnspecified() {
		return netip.AddrPortFrom(a, port), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err == nil && (ap.Port() == 0 || ap.Addr().IsUnspecified()) {
		err = errors.New("no address of a server")
	}
	return ap, err
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// String writes n as it is read.
func (n Nameserver) String() string {
	at := ""
	switch {
	case n.Protocol == "":
		return n.Addr.String()
	case !n.Addr.IsValid():
		at = fmt.Sprintf("%s:%d", n.Host, n.Port)
	case n.Host == n.Addr.Addr().String():
		at = n.Addr.String()
	default:
		at = n.Host + "@" + n.Addr.String()
	}
	return n.Protocol + "://" + at + n.Path
}

// dialAddress is what is dialled.
func (n Nameserver) dialAddress() string {
	if n.Addr.IsValid() {
		return n.Addr.String()
	}
	return net.JoinHostPort(n.Host, fmt.Sprint(n.Port))
}

// upstream sends queries to one name server. It is safe for concurrent use.
type upstream interface {
	// String is the server as ParseNameserver reads it.
	String() string
	// ask returns an answer to the query sent, with its ID, before deadline.
	ask(ctx context.Context, sent []byte, deadline time.Time) ([]byte, error)
	// close ends connections that are kept.
	close()
}

// newUpstream returns the way to ask n. roots are the authorities that may
// vouch for it; nil stands for the system's.
func newUpstream(n Nameserver, roots *x509.CertPool) upstream {
	settings := &tls.Config{ServerName: n.Host, RootCAs: roots, MinVersion: tls.VersionTLS12}
	switch n.Protocol {
	case "tls":
		return &tlsUpstream{name: n.String(), address: n.dialAddress(), tls: settings, idle: make(chan net.Conn, maxIdleServers)}
	case "https":
		u := url.URL{Scheme: "https", Host: n.Host, Path: n.Path}
		if strings.Contains(n.Host, ":") {
			u.Host = "[" + n.Host + "]"
		}
		address := n.dialAddress()
		return &httpsUpstream{name: n.String(), url: u.String(), client: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "tcp", address)
				},
				TLSClientConfig: settings, ForceAttemptHTTP2: true, DisableCompression: true,
				MaxIdleConns: maxIdleServers, MaxConnsPerHost: maxServerConns, IdleConnTimeout: serverIdle,
				MaxResponseHeaderBytes: 16 << 10,
			},
		}}
	}
	return plainUpstream{n.Addr}
}

const (
	// maxIdleServers and serverIdle bound the connections to a name server that
	// are kept for the next query; maxServerConns bounds those of HTTPS at all.
	maxIdleServers = 4
	maxServerConns = 64
	serverIdle     = 10 * time.Second
)

// plainUpstream asks over UDP and, when the answer does not fit, over TCP.
type plainUpstream struct{ addr netip.AddrPort }

func (plainUpstream) close() {}

func (u plainUpstream) String() string { return u.addr.String() }

func (u plainUpstream) ask(ctx context.Context, sent []byte, deadline time.Time) ([]byte, error) {
	answer, err := u.askUDP(ctx, sent, deadline)
	if err == nil && isTruncated(answer) {
		answer, err = u.askTCP(ctx, sent, deadline)
	}
	return answer, err
}

// askUDP returns the first datagram that answers the query. What does not is
// passed over: anybody may send datagrams to our port.
func (u plainUpstream) askUDP(ctx context.Context, sent []byte, deadline time.Time) ([]byte, error) {
	conn, stop, err := dialServer(ctx, "udp", u.addr.String(), deadline)
	if err != nil {
		return nil, err
	}
	defer stop()
	if _, err := conn.Write(sent); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDPAnswer+1)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if !answers(buf[:n], sent) {
			continue
		}
		if n > maxUDPAnswer {
			buf[2] |= truncatedBit
		}
		return bytes.Clone(buf[:n]), nil
	}
}

func (u plainUpstream) askTCP(ctx context.Context, sent []byte, deadline time.Time) ([]byte, error) {
	conn, stop, err := dialServer(ctx, "tcp", u.addr.String(), deadline)
	if err != nil {
		return nil, err
	}
	defer stop()
	return askStream(conn, sent)
}

// askStream asks one question on a connection that has nothing else to do.
func askStream(conn net.Conn, sent []byte) ([]byte, error) {
	if err := writeFramed(conn, sent); err != nil {
		return nil, err
	}
	answer, err := readFramed(conn, 1<<16-1)
	if err == nil && !answers(answer, sent) {
		err = errors.New("answer to another query")
	}
	return answer, err
}

// dialServer connects to a name server for one try: the connection's deadline
// is set, and the end of ctx cuts it short. stop closes it.
func dialServer(ctx context.Context, network, server string, deadline time.Time) (conn net.Conn, stop func(), err error) {
	d := net.Dialer{Deadline: deadline}
	if conn, err = d.DialContext(ctx, network, server); err != nil {
		return nil, nil, err
	}
	conn.SetDeadline(deadline)
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { unhook(); conn.Close() }, nil
}

// tlsUpstream asks over TLS, one question at a time on each connection.
type tlsUpstream struct {
	name, address string
	tls           *tls.Config
	idle          chan net.Conn
}

func (u *tlsUpstream) String() string { return u.name }

func (u *tlsUpstream) ask(ctx context.Context, sent []byte, deadline time.Time) ([]byte, error) {
	select {
	case conn := <-u.idle: // the server may have closed it meanwhile
		if answer, err := u.askOn(ctx, conn, sent, deadline); err == nil || ctx.Err() != nil {
			return answer, err
		}
	default:
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Deadline: deadline}, Config: u.tls}
	conn, err := d.DialContext(ctx, "tcp", u.address)
	if err != nil {
		return nil, err
	}
	return u.askOn(ctx, conn, sent, deadline)
}

func (u *tlsUpstream) askOn(ctx context.Context, conn net.Conn, sent []byte, deadline time.Time) ([]byte, error) {
	conn.SetDeadline(deadline)
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	answer, err := askStream(conn, sent)
	if !unhook() || err != nil {
		conn.Close()
		return answer, err
	}
	select {
	case u.idle <- conn:
	default:
		conn.Close()
	}
	return answer, nil
}

func (u *tlsUpstream) close() {
	for {
		select {
		case conn := <-u.idle:
			conn.Close()
		default:
			return
		}
	}
}

// httpsUpstream asks over HTTPS.
type httpsUpstream struct {
	name, url string
	client    *http.Client
}

func (u *httpsUpstream) String() string { return u.name }

func (u *httpsUpstream) ask(ctx context.Context, sent []byte, deadline time.Time) ([]byte, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	id := binary.BigEndian.Uint16(sent)
	query := bytes.Clone(sent)
	query[0], query[1] = 0, 0 // RFC 8484, section 4.1
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.url, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", dnsMessageType)
	req.Header.Set("Accept", dnsMessageType)
	resp, err := u.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != dnsMessageType {
		return nil, fmt.Errorf("it answers %s, %q", resp.Status, resp.Header.Get("Content-Type"))
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return nil, err
	}
	if len(answer) > 1<<16-1 || !answers(answer, query) {
		return nil, errors.New("answer to another query")
	}
	binary.BigEndian.PutUint16(answer, id)
	return answer, nil
}

func (u *httpsUpstream) close() { u.client.CloseIdleConnections() }

const dnsMessageType = "application/dns-message"
