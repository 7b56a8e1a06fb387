// Package doctor judges what was found on the way from this machine to the
// internet behind an exit, hop by hop, and says which one fails and what to do.
//
// It has no I/O: observations in, a Report out. It also takes out of a text
// what a user does not want to publish (Redactor), and packs a bundle.
package doctor

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// Schema is the version of a Report's JSON. It grows when a field changes its
// meaning or goes; a new field does not change it.
const Schema = 1

// Verdict is what was found about one line of a report.
type Verdict string

// The verdicts.
const (
	OK       Verdict = "ok"
	Note     Verdict = "note"      // it works, but something is missing or unusual
	Failed   Verdict = "FAILED"    // nothing gets past this
	Unknown  Verdict = "unknown"   // not to be told, mostly for want of permissions
	NotTried Verdict = "not tried" // since something before it failed
)

// Line is about one hop.
type Line struct {
	Place   string  `json:"place"` // whose it is: "this machine", "relay wss://…", "exit npub1…"
	Hop     string  `json:"hop"`
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found,omitempty"`
	Do      string  `json:"do,omitempty"` // what helps
	Millis  float64 `json:"ms,omitempty"` // how long it took
}

// Report is what the doctor found, in the order of the way.
type Report struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"`
	System  string    `json:"system"`
	Time    time.Time `json:"time"`
	Lines   []Line    `json:"lines"`
	// Failing is the first hop that fails, Works whether traffic would get
	// through nevertheless, as by another relay.
	Failing *Line `json:"failing_hop,omitempty"`
	Works   bool  `json:"works"`
}

// add judges nothing; it keeps foreign text from breaking lines or terminals.
func (r *Report) add(lines ...Line) {
	for _, l := range lines {
		l.Place, l.Found, l.Do = oneLine(l.Place), oneLine(l.Found), oneLine(l.Do)
		r.Lines = append(r.Lines, l)
	}
}

// finish names the failing hop.
func (r *Report) finish() {
	for i := range r.Lines {
		if r.Lines[i].Verdict == Failed {
			r.Failing = &r.Lines[i]
			return
		}
	}
}

// Write prints the report for people.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "nws-vpn %s on %s\n", r.Version, r.System)
	place := ""
	for _, l := range r.Lines {
		if l.Place != place {
			place = l.Place
			fmt.Fprintf(&b, "\n%s\n", place)
		}
		found := l.Found
		if l.Millis > 0 {
			found = strings.TrimSpace(fmt.Sprintf("%s (%.1f ms)", found, l.Millis))
		}
		fmt.Fprintf(&b, "  %-9s  %-16s  %s\n", l.Verdict, l.Hop, found)
		if l.Do != "" {
			fmt.Fprintf(&b, "  %-9s  %-16s  → %s\n", "", "", l.Do)
		}
	}
	b.WriteString("\n" + r.summary() + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) summary() string {
	switch {
	case r.Failing == nil && r.Works:
		return "Everything works, from this machine to the internet behind the exit."
	case r.Failing == nil:
		return "Nothing was found to fail, but not everything could be tried."
	}
	s := fmt.Sprintf("The failing hop: %s, %s: %s", r.Failing.Place, r.Failing.Hop, r.Failing.Found)
	if r.Failing.Do != "" {
		s += "\nWhat to do: " + r.Failing.Do
	}
	if r.Works {
		s += "\nTraffic gets through nevertheless."
	}
	return s
}

// oneLine makes a text fit for one line of output.
func oneLine(s string) string {
	const most = 1000
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "…"
	}
	return s
}
