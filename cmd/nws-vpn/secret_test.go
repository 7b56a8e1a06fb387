package main

import (
	"strings"
	"testing"
)

// leak check 55: a key in an argument or in the environment
func TestSecretsInTheOpen(t *testing.T) {
	nsec := "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
	for _, tt := range []struct {
		args, environ string
		refused       string // a word of the refusal, or ""
	}{
		{"exit --key " + nsec, "", "command line"},
		{"exit --key=" + nsec, "", "command line"},
		{"keygen " + nsec, "", "command line"},
		{"-v up --identity " + nsec, "", "command line"},
		{"exit --key exit.key", "NOSTR_PRIVATE_KEY=" + nsec, "NOSTR_PRIVATE_KEY"},
		{"up", "X=y Z=a:" + nsec, "variable Z"},
		{"exec tool --sec " + nsec, "KEY=" + nsec, ""},
		{"status", "KEY=" + nsec, ""},
		{"exit --key exit.key", "KEY=exit.key", ""},
		{"", "", ""},
	} {
		err := secretInTheOpen(strings.Fields(tt.args), strings.Fields(tt.environ))
		switch {
		case (err == nil) != (tt.refused == ""), err != nil && !strings.Contains(err.Error(), tt.refused):
			t.Errorf("%.40q, %.40q: %v", tt.args, tt.environ, err)
		case err != nil && (strings.Contains(err.Error(), nsec) || !strings.Contains(err.Error(), "keygen")):
			t.Errorf("the refusal shows the key, or no remedy: %v", err)
		}
	}
}
