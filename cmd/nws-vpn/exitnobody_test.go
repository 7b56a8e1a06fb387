package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/exit/admission"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func TestExitForNobodyIsWarnedOf(t *testing.T) {
	listed := []envelope.PublicKey{envelopetest.NewKey(t).Public()}
	now := time.Now()
	book, err := admission.OpenBook(filepath.Join(t.TempDir(), exitAdmissionFile), admission.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	warns := func(rules admission.Rules) bool {
		var log bytes.Buffer
		warnOfNobody(book, rules, now, slog.New(slog.NewTextHandler(&log, nil)))
		if text := log.String(); text != "" && (strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "exit invite")) {
			t.Errorf("logged %q", text)
		}
		return log.Len() > 0
	}
	for _, test := range []struct {
		rules admission.Rules
		want  bool
	}{
		{admission.Rules{}, false},
		{admission.Rules{Mode: admission.Listed}, true},
		{admission.Rules{Mode: admission.Listed, Listed: listed}, false},
		{admission.Rules{Mode: admission.Trust, FollowsOf: listed}, false},
	} {
		if got := warns(test.rules); got != test.want {
			t.Errorf("%+v: warned %v", test.rules, got)
		}
	}
	if _, err := book.Invite("token", "", 1, now.Add(time.Hour), now); err != nil {
		t.Fatal(err)
	}
	if warns(admission.Rules{Mode: admission.Listed}) {
		t.Error("warned although somebody is invited")
	}
	now = now.Add(2 * time.Hour)
	if !warns(admission.Rules{Mode: admission.Listed}) {
		t.Error("not warned when the invitation is over")
	}
}
