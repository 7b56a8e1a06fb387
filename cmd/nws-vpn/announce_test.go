package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func TestOpenPorts(t *testing.T) {
	var scattered []string
	for port := 2; port < 400; port += 2 {
		scattered = append(scattered, fmt.Sprint(port))
	}
	for rule, want := range map[string]string{
		"allow *":                                "[]",
		"deny *:25":                              "[1-24 26-65535]",
		"deny *:465,25-26,1":                     "[2-24 27-464 466-65535]",
		"deny tcp *:65535":                       "[1-65534]",
		"deny udp *:25":                          "[]",
		"deny 198.51.100.0/24:25":                "[]",
		"deny *:" + strings.Join(scattered, ","): "[]",
	} {
		r, err := exit.ParseRule(rule)
		if err != nil {
			t.Fatal(err)
		}
		p := exit.Policy{Rules: []exit.Rule{r}, Preset: "open"}
		if got := fmt.Sprint(openPorts(p.TCPPorts())); got != want {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
}

func TestAdmissionIsAnnounced(t *testing.T) {
	key := envelopetest.NewKey(t)
	for admission, want := range map[string]string{config.AdmitAll: "", config.AdmitListed: announce.Listed, config.AdmitFollowed: announce.Trusted} {
		e := config.Default().Exit
		e.Admission = admission
		if a, err := announcement(&e, key); err != nil || a.Admission != want || a.Private() != (want != "") {
			t.Errorf("%s: announced %+v, %v", admission, a, err)
		}
	}
}

func TestWhatCannotBeAnnounced(t *testing.T) {
	key := envelopetest.NewKey(t)
	for _, e := range []config.Exit{
		{Contact: strings.Repeat("x", 1000)}, {Contact: "two\nlines"}, {Instance: strings.Repeat("x", 1000)},
	} {
		if _, err := announcement(&e, key); err == nil {
			t.Errorf("contact %q, instance %q can be announced", e.Contact, e.Instance)
		}
	}
	e := config.Default().Exit
	if a, err := announcement(&e, key); err != nil || !strings.Contains(a.Policy.String(), "26-118") {
		t.Errorf("announced %+v, %v", a, err)
	}
}
