package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
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

func TestAskPage(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		http.Redirect(w, r, "http://10.0.0.1/login", http.StatusFound)
	}))
	defer server.Close()
	dialer := &net.Dialer{}
	host := server.Listener.Addr().String()
	for range 2 {
		p := askPage(context.Background(), dialer, host)
		if p.status != http.StatusFound || p.location != "http://10.0.0.1/login" {
			t.Errorf("got %+v", p)
		}
	}
	if len(asked) != 2 || asked[0] == asked[1] {
		t.Errorf("asked for %q, which a portal could foresee", asked)
	}
	server.Close()
	if p := askPage(context.Background(), dialer, host); p.status != 0 {
		t.Errorf("nobody is there, and answered %+v", p)
	}
}
