package main

import (
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/doctor"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// A relay with members is asked by its member.
func TestDoctorIsAMember(t *testing.T) {
	key := envelopetest.NewKey(t)
	server := relayd.New(relayd.Options{Members: []envelope.PublicKey{key.Public()}})
	web := httptest.NewServer(server)
	defer web.Close()
	defer server.Close()
	for _, k := range []envelope.SecretKey{key, {}} {
		found := doctor.Relay{URL: "ws" + strings.TrimPrefix(web.URL, "http")}
		r := relayExamination{dialer: &net.Dialer{}, found: &found, key: k}
		r.examine(t.Context())
		last := found.Steps[len(found.Steps)-1]
		if answered := last.Name == doctor.HopQuestion && last.Found == "the relay answers questions" && last.Err == nil; answered == k.IsZero() {
			t.Errorf("with a key %v: %+v", !k.IsZero(), last)
		}
	}
}
