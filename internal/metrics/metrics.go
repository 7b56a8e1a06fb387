// Package metrics writes figures in the text format of Prometheus, version 0.0.4.
package metrics

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Set is figures to write. Its zero value is empty. A Set is used by one
// goroutine.
type Set struct{ b strings.Builder }

// The kinds of figures.
const (
	Gauge   = "gauge"   // what is so now
	Counter = "counter" // what only grows; its name ends in _total
)

// Number is a figure's value.
type Number interface {
	~int | ~int64 | ~uint64 | ~float64
}

// Add adds a figure without labels.
func Add[N Number](s *Set, name, kind, help string, value N) {
	s.head(name, kind, help)
	fmt.Fprintf(&s.b, "%s %v\n", name, number(value))
}

// Value is one of several values of a figure, told apart by a label.
type Value[N Number] struct {
	Label string // its value
	N     N
}

// AddBy adds a figure with a value for each value of a label. Labels are for what
// is few and known beforehand, never for who uses the program.
func AddBy[N Number](s *Set, name, kind, help, label string, values []Value[N]) {
	s.head(name, kind, help)
	for _, v := range values {
		fmt.Fprintf(&s.b, "%s{%s=\"%s\"} %v\n", name, label, escape.Replace(v.Label), number(v.N))
	}
}

// AddProcess adds what is so of every process: its version, as a label, and since
// when it runs. The names are those that others use.
func AddProcess(s *Set, version string, since time.Time) {
	AddBy(s, "nws_build_info", Gauge, "1, with the version of the program.", "version", []Value[int]{{version, 1}})
	Add(s, "process_start_time_seconds", Gauge, "When the process began, in seconds since 1970.", since.Unix())
}

func (s *Set) head(name, kind, help string) {
	fmt.Fprintf(&s.b, "# HELP %s %s\n# TYPE %s %s\n", name, strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help), name, kind)
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// number keeps large integers exact.
func number[N Number](n N) string {
	if f := float64(n); f != float64(int64(f)) || f > 1<<62 {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return strconv.FormatInt(int64(n), 10)
}

// WriteTo implements io.WriterTo.
func (s *Set) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, s.b.String())
	return int64(n), err
}
