package main

import (
	"testing"
	"time"
)

func TestSlept(t *testing.T) {
	base := time.Now() // with both clocks
	for _, c := range []struct {
		name      string
		last, now time.Time
		want      time.Duration
	}{
		{"nothing", base, base.Add(clockCheck), 0},
		{"a busy machine", base, base.Add(clockCheck + leastSleep - 1), 0},
		{"stopped", base, base.Add(clockCheck + 30*time.Second), 30 * time.Second},
		// Without the monotonic clock a time is the wall clock's alone.
		{"asleep", base.Round(0), base.Round(0).Add(clockCheck + time.Hour), time.Hour},
		{"set back", base.Round(0), base.Round(0).Add(-time.Hour), 0},
	} {
		if got := slept(c.last, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
