package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/platform"
)

func steps(hops ...string) []Step {
	var list []Step
	for _, h := range hops {
		list = append(list, Step{Name: h})
	}
	return list
}

// failing is steps whose last one fails.
func failing(err error, hops ...string) []Step {
	list := steps(hops...)
	list[len(list)-1].Err = err
	return list
}

var (
	goodRelay = Relay{URL: "ws://good", Steps: steps(HopName, HopConnection, HopWebsocket, HopQuestion), Description: &Step{}, ToldClock: true}
	goodExit  = Exit{Name: "npub1x", Steps: steps(HopChoice, HopHandshake, HopResolver, HopConnect)}
)

func clocked(ahead time.Duration) Relay {
	r := goodRelay
	r.Ahead = ahead
	return r
}

func TestJudge(t *testing.T) {
	dead := Relay{URL: "wss://dead", Steps: failing(syscall.ECONNREFUSED, HopName, HopConnection)}
	noExit := Exit{Name: "npub1x", Steps: failing(errors.New("no answer"), HopChoice, HopHandshake)}
	for _, c := range []struct {
		name  string
		found Found
		hop   string // of the failing line, or ""
		do    string
		works bool
	}{
		{"all well", Found{Relays: []Relay{goodRelay}, Exit: goodExit}, "", "", true},
		{"configuration", Found{Config: Step{Err: errors.New("nws.toml:3: bad")}, Exit: Exit{Steps: failing(errors.New("none"), HopChoice)}}, "configuration", "correct", false},
		{"one of two relays", Found{Relays: []Relay{dead, goodRelay}, Exit: goodExit}, HopConnection, "nothing listens", true},
		{"no relay", Found{Relays: []Relay{dead}, Exit: Exit{Steps: steps(HopChoice)}}, HopConnection, "nothing listens", false},
		{"exit silent", Found{Relays: []Relay{goodRelay}, Exit: noExit}, HopHandshake, "exit runs", false},
		{"exit not chosen", Found{Relays: []Relay{goodRelay}, Exit: Exit{Steps: failing(errors.New("name one"), HopChoice)}}, HopChoice, "", false},
		{"clock behind, exit silent", Found{Relays: []Relay{clocked(2 * time.Hour)}, Exit: noExit}, HopClock, "NTP", false},
		{"clock ahead, exit silent", Found{Relays: []Relay{clocked(-2 * time.Hour)}, Exit: noExit}, HopClock, "NTP", false},
		{"a relay's clock is wrong", Found{Relays: []Relay{clocked(2 * time.Hour)}, Exit: goodExit}, "", "", true},
		{"most relays' clocks are right", Found{Relays: []Relay{clocked(2 * time.Hour), goodRelay, clocked(time.Second)}, Exit: noExit}, HopHandshake, "", false},
		{"the exit complains of the clock", Found{Relays: []Relay{goodRelay}, Exit: Exit{Steps: failing(errors.New("refused: your clock differs from mine by 3m0s"), HopChoice, HopHandshake)}}, HopClock, "NTP", false},
		{"exit cut off", Found{Relays: []Relay{goodRelay}, Exit: Exit{Steps: append(failing(errors.New("SERVFAIL"), HopChoice, HopHandshake, HopResolver), Step{Name: HopConnect, Err: syscall.ENETUNREACH})}}, HopResolver, "resolves names", false},
		{"exit's policy", Found{Relays: []Relay{goodRelay}, Exit: Exit{Steps: failing(syscall.EACCES, HopChoice, HopHandshake, HopResolver, HopConnect)}}, HopConnect, "policy", false},
		{"not let in", Found{Relays: []Relay{goodRelay}, Exit: Exit{Steps: failing(fmt.Errorf("the exit refused: %w", syscall.EACCES), HopChoice, HopHandshake)}}, HopHandshake, "invitation", false},
		{"no room at the exit", Found{Relays: []Relay{goodRelay}, Exit: Exit{Steps: failing(fmt.Errorf("the exit refused: %w", syscall.ECONNREFUSED), HopChoice, HopHandshake)}}, HopHandshake, "no room", false},
		{"a limit of the exit", Found{Relays: []Relay{goodRelay}, Exit: Exit{Steps: failing(errors.New("too busy: you have 9 flows open"), HopChoice, HopHandshake, HopResolver, HopConnect)}}, HopConnect, "a limit", false},
		{"flows were refused", Found{Tunnel: Tunnel{Running: true, State: "connected", Refused: []string{"3 × denied by policy"}}, Relays: []Relay{goodRelay}, Exit: goodExit}, "", "", true},
		{"stopped", Found{Tunnel: Tunnel{Denied: true}, Stopped: errors.New("as root"), Relays: []Relay{{URL: "ws://x"}}, Exit: Exit{Steps: steps(HopChoice)}}, "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Judge(&c.found)
			switch f := r.Failing; {
			case f == nil:
				if c.hop != "" {
					t.Errorf("nothing fails: %+v", r.Lines)
				}
			case f.Hop != c.hop || !strings.Contains(f.Do, c.do):
				t.Errorf("failing hop %+v", f)
			}
			if r.Works != c.works {
				t.Errorf("works: %v", r.Works)
			}
			var text strings.Builder
			if err := r.Write(&text); err != nil || strings.Contains(text.String(), "The failing hop") != (c.hop != "") {
				t.Errorf("%v\n%s", err, text.String())
			}
		})
	}
}

// What comes after a failed hop is not tried, and what comes before is ok.
func TestHopsAfterAFailedOne(t *testing.T) {
	hops := relayHops("wss://x")
	for i, hop := range hops {
		r := Relay{URL: "wss://x", Steps: failing(errors.New("broken"), hops[:i+1]...)}
		for j, l := range judgeRelay(&r, nil) {
			want := NotTried
			if j < i {
				want = OK
			} else if j == i {
				want = Failed
			}
			if l.Verdict != want || j == i && l.Do == "" {
				t.Errorf("%s fails: %+v, want %q", hop, l, want)
			}
		}
		if r.Up() {
			t.Errorf("%s fails, and the relay counts as usable", hop)
		}
	}
	if !goodRelay.Up() || (&Relay{}).Up() {
		t.Error("a relay is usable when its last hop works")
	}
}

func TestRemedies(t *testing.T) {
	for _, c := range []struct {
		hop  string
		err  error
		want string
	}{
		{HopName, &net.DNSError{IsNotFound: true}, "spelling"},
		{HopName, &net.DNSError{IsTimeout: true}, "does not answer"},
		{HopConnection, fmt.Errorf("dial: %w", syscall.ECONNREFUSED), "nothing listens"},
		{HopConnection, syscall.EPERM, "packet filter"},
		{HopConnection, syscall.EHOSTUNREACH, "online"},
		{HopConnection, context.DeadlineExceeded, "port 443"},
		{HopConnection, errors.New("x"), "another relay"},
		{HopTLS, x509.UnknownAuthorityError{}, "intercepting"},
		{HopTLS, x509.HostnameError{Certificate: &x509.Certificate{}}, "another host's"},
		{HopTLS, x509.CertificateInvalidError{Reason: x509.Expired}, "clock first"},
		{HopTLS, context.DeadlineExceeded, "does not serve"},
		{HopTLS, errors.New("x"), "breaks TLS off"},
		{HopWebsocket, context.DeadlineExceeded, "does not serve"},
		{HopWebsocket, errors.New("HTTP 404"), "URL of a Nostr relay"},
		{HopQuestion, context.DeadlineExceeded, "unanswered"},
		{HopQuestion, errors.New("restricted"), "refuses this client"},
	} {
		if got := relayRemedy(c.hop, c.err); !strings.Contains(got, c.want) {
			t.Errorf("%s, %v: %q, want %q in it", c.hop, c.err, got, c.want)
		}
	}
}

func TestMachine(t *testing.T) {
	in := &platform.Inspection{Resolver: platform.ResolverState{Path: "/etc/resolv.conf", Servers: []netip.Addr{netip.MustParseAddr("127.0.0.53")}, Link: "../run/x"}}
	missing := func(name string) []platform.Ability {
		return []platform.Ability{{Name: name, Missing: "there is none: get one"}}
	}
	for _, c := range []struct {
		name      string
		abilities []platform.Ability
		by        Asker
		want      Verdict
	}{
		{"all there", []platform.Ability{{Name: platform.AbilityTUN}}, Asker{KillSwitch: true}, OK},
		{"no TUN", missing(platform.AbilityTUN), Asker{KillSwitch: true, Plain: true}, Failed},
		{"root without permissions", missing(platform.AbilityAdmin), Asker{KillSwitch: true}, Failed},
		{"no root", missing(platform.AbilityAdmin), Asker{KillSwitch: true, Plain: true}, Note},
		{"no root beside a tunnel", missing(platform.AbilityAdmin), Asker{KillSwitch: true, Running: true, Plain: true}, Unknown},
		{"no filter, but wanted", missing(platform.AbilityNFT), Asker{KillSwitch: true}, Failed},
		{"no filter, none wanted", missing(platform.AbilityNFT), Asker{}, Note},
		{"not to be told", []platform.Ability{{Name: platform.AbilityNFT, Missing: "x", Unknown: true}}, Asker{KillSwitch: true}, Unknown},
		{"no user namespaces", missing(platform.AbilityUser), Asker{KillSwitch: true}, Note},
	} {
		lines := Machine(c.abilities, in, c.by)
		if l := lines[0]; l.Verdict != c.want || (l.Verdict == Failed && (l.Found != "there is none" || l.Do != "get one")) {
			t.Errorf("%s: %+v", c.name, l)
		}
		if l := lines[1]; l.Verdict != OK || !strings.Contains(l.Found, "127.0.0.53") || !strings.Contains(l.Found, "../run/x") {
			t.Errorf("%s: %+v", c.name, l)
		}
	}
	if l := resolver(&platform.Inspection{}); l.Verdict != Note {
		t.Errorf("no servers: %+v", l)
	}
	for manager, want := range map[string]string{
		platform.DNSFile:     "127.0.0.53 (a link to ../run/x); `nws-vpn up` has written it",
		platform.DNSResolved: "`nws-vpn up` has told " + platform.DNSResolved + " of the tunnel's name servers",
	} {
		in.Resolver.Manager = manager
		if l := resolver(in); !strings.HasSuffix(l.Found, want) {
			t.Errorf("%s: %q, want %q", manager, l.Found, want)
		}
	}
}

func TestTunnelLine(t *testing.T) {
	for _, c := range []struct {
		tunnel Tunnel
		want   Verdict
		says   string
	}{
		{Tunnel{}, OK, "not running"},
		{Tunnel{Closed: true}, Note, "stays closed"},
		{Tunnel{Denied: true}, Unknown, "may be running"},
		{Tunnel{Running: true, State: "connected", Since: time.Minute}, OK, "1m0s"},
		{Tunnel{Running: true, State: "blocked", Problem: "no exit"}, Note, "no exit"},
		{Tunnel{Running: true, State: "connecting"}, Note, "no reason"},
	} {
		if l := judgeTunnel(c.tunnel); l.Verdict != c.want || !strings.Contains(l.Found, c.says) || (l.Do == "") != (c.want == OK) {
			t.Errorf("%+v: %+v", c.tunnel, l)
		}
	}
}

// Texts of relays and exits cannot draw on the terminal or forge lines.
func TestForeignTextStaysInItsLine(t *testing.T) {
	r := Judge(&Found{Relays: []Relay{{URL: "ws://x", Steps: failing(errors.New("no\x1b[2J\nok everything\u202e works"+strings.Repeat("x", 5000)), HopName)}}})
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	if s := text.String(); strings.ContainsAny(s, "\x1b\u202e") || strings.Contains(s, "\nok everything") || len(s) > 6000 {
		t.Errorf("%q", s)
	}
}
