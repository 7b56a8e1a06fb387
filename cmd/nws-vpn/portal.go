package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

// A network that asks for a login first, or a payment, lets nothing out until
// then, and answers in others' names: a captive portal. It is looked for without
// asking anybody new: first the relay itself, for its description (NIP-11); if it
// cannot be reached, port 80 of its host, which is where portals answer, for a
// page that it cannot have; and the network's resolver, for the relay's address.

// How long relays must be out of reach before a portal is looked for, how often,
// how many relays are asked, and how long each may take.
const (
	portalAfter   = 2 * time.Second
	portalPause   = 10 * time.Second
	portalRelays  = 3
	portalTimeout = 4 * time.Second
)

// watchPortal looks for a captive portal while the relays are out of reach, and
// says in status what it found.
func (s *supervisor) watchPortal() {
	dialer := bypassDialer(s.cfg.Up.Mark, s.platform.UplinkDNS)
	check := time.NewTicker(time.Second)
	defer check.Stop()
	var looked time.Time
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-check.C:
		}
		s.mu.Lock()
		away := s.view.state == lifecycle.Connecting && time.Since(s.view.since) >= portalAfter
		before := s.view.portal
		s.mu.Unlock()
		now := before
		switch {
		case !away:
			now = ""
		case time.Since(looked) >= portalPause:
			now = findPortal(s.ctx, dialer, s.relays)
			looked = time.Now()
		}
		if now == before {
			continue
		}
		if now != "" {
			s.log.Warn("this network seems to ask for a login first", "because", now, "remedy", "nws-vpn portal BROWSER")
		}
		s.mu.Lock()
		s.view.portal = now
		s.mu.Unlock()
	}
}

// findPortal asks the relays' hosts at once, and returns what gives a portal
// away, "" for nothing.
func findPortal(ctx context.Context, dialer *net.Dialer, relays []string) string {
	ctx, cancel := context.WithTimeout(ctx, portalTimeout)
	defer cancel()
	found := make([]string, min(len(relays), portalRelays))
	var asking sync.WaitGroup
	for i := range found {
		asking.Go(func() {
			if u, err := url.Parse(relays[i]); err == nil {
				found[i] = findPortalAt(ctx, dialer, u)
			}
		})
	}
	asking.Wait()
	for _, f := range found {
		if f != "" {
			return f
		}
	}
	return ""
}

func findPortalAt(ctx context.Context, dialer *net.Dialer, relay *url.URL) string {
	host := relay.Hostname()
	itself := *relay
	itself.Scheme = map[string]string{"ws": "http", "wss": "https"}[relay.Scheme]
	p := ask(ctx, dialer, itself.String())
	because := judgePage(host, p)
	switch {
	case because != "":
		return because
	case p.isRelay || p.status != 0 && relay.Scheme == "wss":
		return "" // it is reached; by TLS, nobody answers in its name
	}
	// A name that nobody can foresee.
	elsewhere := url.URL{Scheme: "http", Host: net.JoinHostPort(host, "80"), Path: "/" + strings.ToLower(rand.Text())}
	if because = judgePage(host, ask(ctx, dialer, elsewhere.String())); because != "" {
		return because
	}
	return judgeAddresses(host, lookUp(ctx, dialer, host))
}

// page is an answer over HTTP.
type page struct {
	status   int    // 0: no answer
	location string // of a redirect
	isRelay  bool   // it is the description of a relay
}

func ask(ctx context.Context, dialer *net.Dialer, address string) page {
	client := http.Client{
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return page{}
	}
	req.Header.Set("Accept", "application/nostr+json")
	resp, err := client.Do(req)
	if err != nil {
		return page{}
	}
	resp.Body.Close()
	return page{
		status: resp.StatusCode, location: resp.Header.Get("Location"),
		isRelay: resp.StatusCode == http.StatusOK && strings.Contains(resp.Header.Get("Content-Type"), "json"),
	}
}

// judgePage says why an answer is a portal's, "" if it may be the relay's own. A
// relay's host redirects to itself, if anywhere, and has no such page.
func judgePage(host string, p page) string {
	switch {
	case p.status == http.StatusNetworkAuthenticationRequired:
		return "the network answers that it wants a login (HTTP 511)"
	case p.status >= 300 && p.status < 400 && p.location != "":
		to, err := url.Parse(p.location)
		if err != nil || to.Host == "" || strings.EqualFold(strings.TrimPrefix(to.Hostname(), "www."), strings.TrimPrefix(host, "www.")) {
			return ""
		}
		return fmt.Sprintf("a question to the relay's host is answered with a redirect to %s", oneLine(to.Host))
	}
	return ""
}

func lookUp(ctx context.Context, dialer *net.Dialer, host string) []netip.Addr {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil // it needs no resolver
	}
	addrs, err := dialer.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	return addrs
}

// judgeAddresses says why the addresses of a relay's name are a portal's: all of
// them are of the network itself, while the name is a public one.
func judgeAddresses(host string, addrs []netip.Addr) string {
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	_, top, dotted := strings.Cut(name, ".")
	for _, own := range []string{"local", "lan", "home", "internal", "localhost", "home.arpa", "test", "example"} {
		if top == own || strings.HasSuffix(top, "."+own) {
			return "" // a network may well answer for these
		}
	}
	if len(addrs) == 0 || !dotted {
		return ""
	}
	for _, a := range addrs {
		if a = a.Unmap(); !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsUnspecified() {
			return ""
		}
	}
	return fmt.Sprintf("the network's resolver says that the relay is at %s, which is an address of the network itself", addrs[0])
}
