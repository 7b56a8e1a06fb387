package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

func TestJudgePage(t *testing.T) {
	for _, c := range []struct {
		name   string
		page   page
		portal bool
	}{
		{"no answer", page{}, false},
		{"no such page", page{status: 404}, false},
		{"any page, as some servers do", page{status: 200}, false},
		{"to https", page{status: 301, location: "https://relay.example.com/x"}, false},
		{"to www", page{status: 301, location: "https://www.Relay.example.com/x"}, false},
		{"to a path", page{status: 302, location: "/login"}, false},
		{"to nowhere", page{status: 302}, false},
		{"to what is no URL", page{status: 302, location: "http://%zz"}, false},
		{"not modified", page{status: 304}, false},
		{"a login is wanted", page{status: 511}, true},
		{"to a login", page{status: 302, location: "http://10.0.0.1/login?to=relay.example.com"}, true},
		{"to another name", page{status: 307, location: "https://wifi.hotel.example/"}, true},
	} {
		if got := judgePage("relay.example.com", c.page); (got != "") != c.portal {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestJudgeAddresses(t *testing.T) {
	addrs := func(texts ...string) (list []netip.Addr) {
		for _, text := range texts {
			list = append(list, netip.MustParseAddr(text))
		}
		return list
	}
	for _, c := range []struct {
		host   string
		addrs  []netip.Addr
		portal bool
	}{
		{"relay.damus.io", nil, false},
		{"relay.damus.io", addrs("203.0.113.7"), false},
		{"relay.damus.io", addrs("10.0.0.1", "203.0.113.7"), false},
		{"relay.damus.io", addrs("10.0.0.1"), true},
		{"relay.damus.io.", addrs("::ffff:192.168.1.1", "fe80::1"), true},
		{"relay.damus.io", addrs("0.0.0.0"), true},
		{"relay.lan", addrs("10.0.0.1"), false},
		{"relay.office.internal", addrs("10.0.0.1"), false},
		{"relay", addrs("10.0.0.1"), false},
	} {
		if got := judgeAddresses(c.host, c.addrs); (got != "") != c.portal {
			t.Errorf("%s at %v: %q", c.host, c.addrs, got)
		}
	}
}

// A relay that is reached is asked for nothing more.
func TestFindPortalAtARelay(t *testing.T) {
	asked := 0
	var answer http.HandlerFunc
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		answer(w, r)
	}))
	defer server.Close()
	relay, err := url.Parse("ws" + strings.TrimPrefix(server.URL, "http"))
	if err != nil {
		t.Fatal(err)
	}
	// Port 80 is nobody's here.
	dialed := 0
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		dialed++
		if address != server.Listener.Addr().String() {
			return errors.New("not in this test")
		}
		return nil
	}}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		dials  int
		portal bool
	}{
		{"a relay", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/nostr+json") }, 1, false},
		{"a portal", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://10.0.0.1/login", http.StatusFound)
		}, 1, true},
		{"another page", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }, 2, false},
	} {
		answer, asked, dialed = c.answer, 0, 0
		got := findPortalAt(context.Background(), dialer, relay)
		if (got != "") != c.portal || asked != 1 || dialed != c.dials {
			t.Errorf("%s: %q, asked %d times, dialed %d times", c.name, got, asked, dialed)
		}
	}
	server.Close()
	if got := findPortalAt(context.Background(), dialer, relay); got != "" {
		t.Errorf("nobody is there, and yet: %s", got)
	}
}

// Who wants to get past a tunnel where there is none hears whether the machine is
// open.
func TestWithoutTunnel(t *testing.T) {
	for _, c := range []struct {
		left lifecycle.KillSwitch // or "" for nothing
		want string
	}{
		{"", "no tunnel is up: without one, programs reach the network by themselves"},
		{lifecycle.On, "keeps the machine closed: run `nws-vpn up --retry --detach` first, or open it with `nws-vpn down`"},
		{lifecycle.Lockdown, "the machine is in lockdown: run `nws-vpn up --retry --detach` first, or open it with `nws-vpn down --unlock`"},
	} {
		dirs := stateDirs{t.TempDir()}
		if c.left != "" {
			if err := dirs.remember(record{KillSwitch: c.left}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := uplinkServers(t.Context(), dirs); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("after %q: %v, want %q", c.left, err, c.want)
		}
	}
}
