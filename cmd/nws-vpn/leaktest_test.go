package main

import (
	"slices"
	"testing"
)

func TestProbesOfTheLeakTestAreNamed(t *testing.T) {
	got := mostRefused(map[string]uint64{
		"denied: 192.0.2.7 is a documentation address, which this exit does not reach":           2,
		"denied: 2001:db8:102:300::9 is a documentation address, which this exit does not reach": 1,
		"denied: 10.0.0.1 is a private address, which this exit does not reach":                  1,
		"too busy": 1,
	})
	want := []string{
		"3 × probes of `nws-vpn leaktest`, to addresses that nobody has",
		"1 × denied: 10.0.0.1 is a private address, which this exit does not reach", "1 × too busy",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
