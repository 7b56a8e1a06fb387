package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestAttemptLog(t *testing.T) {
	for _, c := range []struct {
		name  string
		level slog.Level
		tell  bool
		want  string
	}{
		{"that succeeded", slog.LevelInfo, true, "begins, fails, later"},
		{"that failed", slog.LevelInfo, false, "begins"},
		{"at debug level", slog.LevelDebug, false, "begins, fails, later"},
	} {
		var out bytes.Buffer
		log, tell := holdBack(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: c.level})))
		of := log.With("relay", "r")
		of.Info("begins")
		of.Warn("fails", "err", "refused")
		if c.level == slog.LevelInfo && strings.Contains(out.String(), "fails") {
			t.Errorf("of an attempt %s, a failure is told at once", c.name)
		}
		tell(c.tell)
		of.Warn("later", "err", "canceled")
		var said []string
		for line := range strings.Lines(out.String()) {
			_, msg, _ := strings.Cut(line, "msg=")
			word, _, _ := strings.Cut(msg, " ")
			said = append(said, word)
			if !strings.Contains(line, "relay=r") {
				t.Errorf("an attribute is lost: %s", line)
			}
		}
		if got := strings.Join(said, ", "); got != c.want {
			t.Errorf("of an attempt %s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAttemptLogIsBounded(t *testing.T) {
	var out bytes.Buffer
	log, tell := holdBack(slog.New(slog.NewTextHandler(&out, nil)))
	for range maxHeld + 10 {
		log.Warn("fails", "err", "refused")
	}
	tell(true)
	if n := strings.Count(out.String(), "\n"); n != maxHeld {
		t.Errorf("%d records, want %d", n, maxHeld)
	}
}
