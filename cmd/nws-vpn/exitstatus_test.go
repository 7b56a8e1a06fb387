package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
)

// deadNameserver is one over TLS at a port that nobody listens on.
func deadNameserver(t *testing.T) exit.Nameserver {
	t.Helper()
	n, err := exit.ParseNameserver("tls://dns.example@" + deadAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNameserversThatFailAreShown(t *testing.T) {
	dead := deadNameserver(t)
	r := bareExit(t, exit.Config{Nameservers: []exit.Nameserver{dead}})
	r.server.Explain(t.Context(), nil, "tcp", "wanted.example:443")
	s := r.status(0)
	if n := s.Nameservers; len(n) != 1 || n[0].Server != dead.String() || !n[0].Failing || n[0].Since == nil || !strings.Contains(n[0].Problem, "refused") {
		t.Errorf("%+v", n)
	}
	var out bytes.Buffer
	if err := printExitReport(&out, s, time.Now()); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, dead.String()+" does not answer: ") || strings.Contains(text, "wanted") {
		t.Errorf("shown is\n%s", text)
	}
}

func TestPolicyTestSaysWhyNoNameserverAnswers(t *testing.T) {
	e := config.Default().Exit
	e.Nameservers = []exit.Nameserver{deadNameserver(t)}
	err := explainPolicy(t.Context(), new(bytes.Buffer), &e, "", "tcp", "www.example.com:443")
	if err == nil || !strings.Contains(err.Error(), "its name servers do not answer: ") || !strings.Contains(err.Error(), e.Nameservers[0].String()) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}
