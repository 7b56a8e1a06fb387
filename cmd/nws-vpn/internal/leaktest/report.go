// Package leaktest checks whether anything of this machine's programs gets past
// the tunnel, as the machine is now.
//
// Run gathers an Observation: what the kernel says of its rules, routes and
// filter (read by package platform), and what became of probes, which try the
// ways that leaks take. Judge, which is pure, makes a Report of it.
//
// A probe reveals nothing, wherever it goes: it is made of random bytes and goes
// to addresses that are set aside for documentation (RFC 5737, 3849, 6676), or to
// this network's own router and name servers. With CAP_NET_RAW the package reads
// what leaves each interface, and looks for its own probes there: that is the
// judge. Whether the judge sees anything at all is tried first, with a packet that
// has the tunnel's own mark and so may leave.
package leaktest

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
	OK      Verdict = "ok"
	Leak    Verdict = "LEAK"        // a probe was seen outside, or nothing stands between
	Weak    Verdict = "WEAK"        // a protection is missing; nothing was seen outside for that
	Unknown Verdict = "cannot tell" // for the reason that is given
)

// Line is about one way that a leak could take.
type Line struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found,omitempty"`
	Do      string  `json:"do,omitempty"` // what helps
}

// Report is the result, worst verdict included.
type Report struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Verdict Verdict   `json:"verdict"`
	// Listed is set when only what the user has listed is meant for the tunnel.
	Listed bool   `json:"listed,omitempty"`
	Lines  []Line `json:"lines"`
}

// Code is the exit status of a program that prints the report: 0 when all is
// well, 1 for a leak or a missing protection, 2 when something cannot be told.
func (r *Report) Code() int {
	switch r.Verdict {
	case OK:
		return 0
	case Leak, Weak:
		return 1
	}
	return 2
}

// worse orders the verdicts.
var worse = map[Verdict]int{OK: 0, Unknown: 1, Weak: 2, Leak: 3}

func (r *Report) add(l Line) {
	l.Found, l.Do = oneLine(l.Found), oneLine(l.Do)
	r.Lines = append(r.Lines, l)
	if worse[l.Verdict] > worse[r.Verdict] {
		r.Verdict = l.Verdict
	}
}

// Write prints the report for people.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "%-11s  %-22s  %s\n", l.Verdict, l.Check, l.Found)
		if l.Do != "" {
			fmt.Fprintf(&b, "%-11s  %-22s  → %s\n", "", "", l.Do)
		}
	}
	ok := "Nothing gets past the tunnel."
	if r.Listed {
		ok = "Nothing of what is meant for the tunnel gets past it."
	}
	b.WriteString("\n" + map[Verdict]string{
		OK:      ok,
		Leak:    "Something gets past the tunnel: see the lines with LEAK.",
		Weak:    "Nothing was seen to get past the tunnel, but a protection is missing: see the lines with WEAK.",
		Unknown: "Nothing was found to get past the tunnel, but not everything can be told.",
	}[r.Verdict] + "\n")
	if r.Listed {
		b.WriteString("Only what you have listed goes into the tunnel: all else leaves directly, as you have set.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// oneLine makes a text fit for one line of output.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
