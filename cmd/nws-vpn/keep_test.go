package main

import (
	"errors"
	"testing"
)

func TestRelaysAreNamedOnce(t *testing.T) {
	const url = "wss://a"
	for _, said := range []string{"relay wss://a: too slow", "too slow"} {
		err := errors.New(said)
		if got := aboutRelay(url, err); got.Error() != "relay wss://a: too slow" || !errors.Is(got, err) {
			t.Errorf("%q: %v", said, got)
		}
		if got := relayProblem(url, err); got != "too slow" {
			t.Errorf("%q: %q", said, got)
		}
	}
}
