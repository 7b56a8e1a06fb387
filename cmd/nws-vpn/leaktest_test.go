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

func TestInCgroup(t *testing.T) {
	for _, c := range []struct {
		own, cgroup string
		want        bool
	}{
		{"0::/direct.slice\n", "", false},
		{"0::/direct.slice\n", "/direct.slice", true},
		{"0::/direct.slice/x.service\n", "/direct.slice/", true},
		{"0::/direct.slices\n", "/direct.slice", false},
		{"0::/\n", "/direct.slice", false},
		{"0::/\n", "/", true},
		{"0::/a\n", "/", true},
		{"4:memory:/direct.slice\n0::/user.slice\n", "/direct.slice", false},
		{"4:memory:/user.slice\n0::/direct.slice\n", "/direct.slice", true},
		{"", "/", false},
	} {
		if got := inCgroup(c.own, c.cgroup); got != c.want {
			t.Errorf("%q in %q: %v", c.own, c.cgroup, got)
		}
	}
}
