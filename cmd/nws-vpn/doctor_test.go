package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/doctor"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

func TestDescribeInfo(t *testing.T) {
	var info relay.Info
	if got := describeInfo(&info); got != "no limits told" {
		t.Errorf("nothing told: %q", got)
	}
	info.Software = "strfry"
	info.Limitation.MaxMessageLength = 65536
	info.Limitation.AuthRequired = true
	info.Limitation.PaymentRequired = true
	info.Limitation.MinPoWDifficulty = 20
	for _, want := range []string{"strfry", "65536 bytes", "authenticate", "paid", "20 bits"} {
		if got := describeInfo(&info); !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

func TestReadClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		date  string
		told  bool
		ahead time.Duration
	}{
		{"", false, 0}, {"yesterday", false, 0},
		{now.Format(http.TimeFormat), true, -time.Second / 2},
		{now.Add(time.Hour).Format(http.TimeFormat), true, time.Hour - time.Second/2},
	} {
		r := relayExamination{found: new(doctor.Relay)}
		r.readClock(c.date, now, now.Add(2*time.Second)) // read in the middle, and half a second was cut off
		if r.found.ToldClock != c.told || r.found.Ahead != c.ahead {
			t.Errorf("%q: told %v, ahead %v", c.date, r.found.ToldClock, r.found.Ahead)
		}
	}
}

// stream is a connection whose other end has said all it will say.
type stream struct {
	io.Reader
	sent bytes.Buffer
}

func (s *stream) Write(b []byte) (int, error) { return s.sent.Write(b) }

func TestExchange(t *testing.T) {
	name := dnsmessage.MustNewName("www.example.")
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	framed := func(header dnsmessage.Header) string {
		m := dnsmessage.Message{Header: header, Questions: query.Questions}
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return string(binary.BigEndian.AppendUint16(nil, uint16(len(packed)))) + string(packed)
	}
	for _, c := range []struct {
		name, answer string
		ok           bool
	}{
		{"an answer", framed(dnsmessage.Header{ID: 7, Response: true, RCode: dnsmessage.RCodeServerFailure}), true},
		{"another's", framed(dnsmessage.Header{ID: 8, Response: true}), false},
		{"a question", framed(dnsmessage.Header{ID: 7}), false},
		{"nothing", "", false}, {"half a length", "\x00", false}, {"cut off", "\x00\x20abc", false}, {"noise", "\x00\x03abc", false},
	} {
		s := &stream{Reader: strings.NewReader(c.answer)}
		answer, err := exchange(s, &query)
		if (err == nil) != c.ok || c.ok && answer.RCode != dnsmessage.RCodeServerFailure {
			t.Errorf("%s: %+v, %v", c.name, answer, err)
		}
		if sent := s.sent.Bytes(); int(binary.BigEndian.Uint16(sent)) != len(sent)-2 {
			t.Errorf("%s: sent %x", c.name, sent)
		}
	}
}
