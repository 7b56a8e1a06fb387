package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
)

func TestDestinationsOfPolicyTest(t *testing.T) {
	for _, test := range []struct {
		network, destination string
		good                 bool
	}{
		{"tcp", "www.example.com:443", true}, {"udp", "[2001:db8::1]:53", true}, {"ping", "192.0.2.1", true}, {"ping", "2001:db8::1", true},
		{"tcp", "http://foo.example/", false}, {"tcp", "https://foo.example:443", false}, {"tcp", "foo.example", false}, {"tcp", "foo.example:http", false},
		{"tcp", "foo.example:99999", false}, {"tcp", "a/b:80", false}, {"ping", "http://foo.example/", false},
	} {
		err := checkDestination(test.network, test.destination)
		if (err == nil) != test.good || err != nil && !strings.Contains(err.Error(), "want ") {
			t.Errorf("%s %s: %v", test.network, test.destination, err)
		}
	}
}

// What explains a policy fits a screen, whatever the policy has for ports, and
// leaves none out.
func TestPolicyTestFitsAScreen(t *testing.T) {
	e := config.Default().Exit
	e.Policy = "reduced"
	var out bytes.Buffer
	if err := explainPolicy(t.Context(), &out, &e, "", "tcp", "8.8.8.8:25"); err == nil {
		t.Error("mail is allowed")
	}
	for line := range strings.Lines(out.String()) {
		if n := len(strings.TrimRight(line, "\n")); n > 110 || strings.HasSuffix(line, " \n") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if strings.Count(out.String(), "\n") < 10 {
		t.Errorf("too short:\n%s", out.String())
	}
	out.Reset()
	e.Policy, e.Rules = "open", []exit.Rule{{Prefix: netip.MustParsePrefix("8.8.8.0/24")}}
	if err := explainPolicy(t.Context(), &out, &e, "", "tcp", "[64:ff9b::808:808]:443"); err == nil || !strings.HasPrefix(out.String(), "address 64:ff9b::808:808, another way to write 8.8.8.8\n  rule 1  matches: decides  deny 8.8.8.0/24\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	for _, test := range []struct {
		text string
		want string
	}{{"", ""}, {"abc", "abc"}, {"a,b,c,d", "a,b,|c,d"}, {"aaaaaaaa,b", "aaaaaaaa,|b"}} {
		if got := strings.Join(wrapAtCommas(test.text, 4), "|"); got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}
