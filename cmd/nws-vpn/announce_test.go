package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

func TestOpenPorts(t *testing.T) {
	var scattered []uint16
	for port := uint16(2); port < 400; port += 2 {
		scattered = append(scattered, port)
	}
	for _, test := range []struct {
		closed []uint16
		want   string
	}{
		{nil, "[]"},
		{[]uint16{25}, "[1-24 26-65535]"},
		{[]uint16{465, 25, 25, 26, 1}, "[2-24 27-464 466-65535]"},
		{[]uint16{65535}, "[1-65534]"},
		{[]uint16{2}, "[1 3-65535]"},
		{scattered, "[]"},
	} {
		if got := fmt.Sprint(openPorts(test.closed)); got != test.want {
			t.Errorf("without %d: %s, want %s", test.closed, got, test.want)
		}
	}
}

func TestWhatCannotBeAnnounced(t *testing.T) {
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []config.Exit{
		{Contact: strings.Repeat("x", 1000)}, {Contact: "two\nlines"}, {Instance: strings.Repeat("x", 1000)},
	} {
		if _, err := announcement(&e, key); err == nil {
			t.Errorf("contact %q, instance %q can be announced", e.Contact, e.Instance)
		}
	}
	e := config.Default().Exit
	if a, err := announcement(&e, key); err != nil || !strings.Contains(a.Policy.String(), "26-65535") {
		t.Errorf("announced %+v, %v", a, err)
	}
}
