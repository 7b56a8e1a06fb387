package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/doctor"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// hopTimeout bounds each hop of a relay, clockTimeout the question for the time
// to one that has failed.
const (
	hopTimeout   = 5 * time.Second
	clockTimeout = 2 * time.Second
)

// relayExamination tries the hops to one relay, up to the one that fails.
type relayExamination struct {
	dialer *net.Dialer
	found  *doctor.Relay
	key    envelope.SecretKey // who we are to it, zero: nobody

	url   *url.URL
	addrs []netip.Addr
	good  netip.AddrPort // answers
	conn  *relay.Conn
}

func (r *relayExamination) examine(ctx context.Context) {
	var err error
	if r.url, err = url.Parse(r.found.URL); err != nil {
		r.found.Steps = []doctor.Step{{Name: doctor.HopName, Err: err}}
		return
	}
	hops := []struct {
		name string
		try  func(context.Context) (string, error)
	}{
		{doctor.HopName, r.resolve}, {doctor.HopConnection, r.connect}, {doctor.HopTLS, r.secure},
		{doctor.HopWebsocket, r.websocket}, {doctor.HopQuestion, r.ask},
	}
	defer func() {
		if r.conn != nil {
			r.conn.Close()
		}
	}()
	for _, hop := range hops {
		if hop.name == doctor.HopTLS && r.url.Scheme != "wss" {
			continue
		}
		s := try(ctx, hop.name, hopTimeout, hop.try)
		r.found.Steps = append(r.found.Steps, s)
		if s.Err != nil {
			// The clock is worth asking wherever something answers.
			if r.good.IsValid() {
				try(ctx, doctor.HopDescription, clockTimeout, r.describe)
			}
			return
		}
	}
	s := try(ctx, doctor.HopDescription, hopTimeout, r.describe)
	r.found.Description = &s
}

// try runs one hop with a bound on its time.
func try(ctx context.Context, name string, timeout time.Duration, f func(context.Context) (string, error)) doctor.Step {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begun := time.Now()
	found, err := f(ctx)
	return doctor.Step{Name: name, Found: found, Took: time.Since(begun), Err: err}
}

func (r *relayExamination) port() string {
	switch p := r.url.Port(); {
	case p != "":
		return p
	case r.url.Scheme == "wss":
		return "443"
	}
	return "80"
}

func (r *relayExamination) resolve(ctx context.Context) (string, error) {
	host := r.url.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		r.addrs = []netip.Addr{addr}
		return "an address", nil
	}
	resolver := r.dialer.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", err
	}
	const most = 4
	r.addrs = addrs[:min(len(addrs), most)]
	var texts []string
	for _, a := range r.addrs {
		texts = append(texts, a.Unmap().String())
	}
	return strings.Join(texts, ", "), nil
}

// connect finds an address that answers.
func (r *relayExamination) connect(ctx context.Context) (string, error) {
	var errs []error
	for i, a := range r.addrs {
		// Each one gets its part of the time that is left.
		part := ctx
		if deadline, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			part, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(r.addrs)-i))
			defer cancel()
		}
		address := net.JoinHostPort(a.Unmap().String(), r.port())
		conn, err := r.dialer.DialContext(part, "tcp", address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		conn.Close()
		if r.good, err = netip.ParseAddrPort(address); err != nil {
			return "", err
		}
		return address, nil
	}
	return "", errors.Join(errs...)
}

// dial reaches the address that answered, whatever is asked for.
func (r *relayExamination) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return r.dialer.DialContext(ctx, network, r.good.String())
}

func (r *relayExamination) secure(ctx context.Context) (string, error) {
	conn, err := r.dial(ctx, "tcp", "")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{ServerName: r.url.Hostname(), NextProtos: []string{"http/1.1"}})
	if err := c.HandshakeContext(ctx); err != nil {
		return "", err
	}
	state := c.ConnectionState()
	leaf := state.PeerCertificates[0]
	return fmt.Sprintf("%s, the certificate is valid until %s", tls.VersionName(state.Version), leaf.NotAfter.Format(time.DateOnly)), nil
}

func (r *relayExamination) websocket(ctx context.Context) (_ string, err error) {
	opts := relay.Options{DialContext: r.dial, ReplyTimeout: hopTimeout}
	if !r.key.IsZero() {
		opts.Auth = r.sign
	}
	r.conn, err = relay.Dial(ctx, r.found.URL, opts)
	return "", err
}

// sign answers a relay that asks who we are (NIP-42).
func (r *relayExamination) sign(_ context.Context, url, challenge string) (event []byte, id [32]byte, err error) {
	const kindAuth = 22242
	return envelope.Sign(nil, r.key, envelope.Template{
		Kind: kindAuth, CreatedAt: time.Now(), Tags: [][]string{{"relay", url}, {"challenge", challenge}},
	})
}

// ask asks for stored announcements, which is harmless, to see an answer.
func (r *relayExamination) ask(ctx context.Context) (string, error) {
	one := 1
	err := r.conn.Subscribe(ctx, "doctor", []relay.Filter{{Kinds: []int{envelope.KindAnnouncement}, Limit: &one}}, func([]byte) {})
	var refused *relay.RefusedError
	if errors.As(err, &refused) && refused.NoSigner {
		return "it asks who we are (NIP-42), and is told a throw-away key", nil
	}
	return "the relay answers questions", err
}

// maxDescription bounds what is read of a relay's description.
const maxDescription = 64 << 10

// describe reads the relay's description, and what time it is there.
func (r *relayExamination) describe(ctx context.Context) (string, error) {
	u := *r.url
	u.Scheme = "http" + strings.TrimPrefix(u.Scheme, "ws")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "application/nostr+json")
	req.Header.Set("User-Agent", "nws-vpn")
	client := http.Client{
		Transport:     &http.Transport{DialContext: r.dial, DisableKeepAlives: true, MaxResponseHeaderBytes: maxDescription},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	begun := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	r.readClock(resp.Header.Get("Date"), begun, time.Now())
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answered HTTP %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDescription))
	if err != nil {
		return "", err
	}
	var info relay.Info
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &info); err != nil && !errors.As(err, &wrongType) {
		return "", err
	}
	return describeInfo(&info), nil
}

// readClock compares the clocks. The header's whole second was cut off, which
// half a second makes up for, on average.
func (r *relayExamination) readClock(date string, asked, answered time.Time) {
	there, err := http.ParseTime(date)
	if err != nil {
		return
	}
	here := asked.Add(answered.Sub(asked) / 2)
	r.found.Ahead, r.found.ToldClock = there.Add(time.Second/2).Sub(here), true
}

// describeInfo tells the limits that matter to a tunnel.
func describeInfo(info *relay.Info) string {
	var parts []string
	add := func(is bool, format string, args ...any) {
		if is {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	l := info.Limitation
	add(info.Software != "", "%s %s", info.Software, info.Version)
	add(l.MaxMessageLength > 0, "messages up to %d bytes", l.MaxMessageLength)
	add(l.MaxContentLength > 0, "contents up to %d bytes", l.MaxContentLength)
	add(l.MaxSubscriptions > 0, "%d subscriptions", l.MaxSubscriptions)
	add(l.MinPoWDifficulty > 0, "wants %d bits of work for each event", l.MinPoWDifficulty)
	add(l.AuthRequired, "wants its clients to authenticate")
	add(l.PaymentRequired, "wants to be paid")
	add(l.RestrictedWrites, "does not take events of everybody")
	if len(parts) == 0 {
		return "no limits told"
	}
	return strings.Join(parts, ", ")
}
