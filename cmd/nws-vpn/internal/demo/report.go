package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// report writes the story and remembers what went wrong in it.
type report struct {
	out    io.Writer
	colour bool
	failed []string
}

func newReport(out io.Writer) *report {
	r := &report{out: out}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		r.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return r
}

// The terminal's attributes that are used.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
)

func (r *report) paint(attribute, text string) string {
	if !r.colour || text == "" {
		return text
	}
	return "\x1b[" + attribute + "m" + text + "\x1b[0m"
}

func (r *report) print(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// heading begins a part.
func (r *report) heading(text string) { r.print("\n%s", r.paint(bold, text)) }

// note is an indented line.
func (r *report) note(format string, args ...any) { r.print("        "+format, args...) }

// step runs f and writes one line with its outcome, the detail that f returns
// and the time it took. It reports whether f succeeded.
func (r *report) step(what string, f func() (detail string, err error)) bool {
	start := time.Now()
	detail, err := f()
	took := time.Since(start)
	if err != nil {
		r.failed = append(r.failed, what)
		r.print("  %s  %s", r.paint(red, "FAIL"), what)
		for line := range strings.Lines(strings.TrimSpace(err.Error())) {
			r.note("%s", strings.TrimRight(line, "\n"))
		}
		return false
	}
	r.print("  %s  %s %s %s", r.paint(green, "ok  "), pad(what, 55), pad(detail, 41), r.paint(dim, duration(took)))
	return true
}

// pad fills up to a width counted in characters.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func duration(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// megabytes is n in MB, which are millions of bytes.
func megabytes(n int64) string {
	if n < 100_000 {
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

func rate(n int64, d time.Duration) string {
	return fmt.Sprintf("%s at %.0f MB/s", megabytes(n), float64(n)/1e6/d.Seconds())
}

// shorten makes a long word fit a line: its beginning and its end.
func shorten(word string, width int) string {
	if len(word) <= width {
		return word
	}
	keep := width - len("…") + 2
	return word[:keep/2] + "…" + word[len(word)-keep/2:]
}

// log shows the end of what a program printed.
func (r *report) log(name, output string) {
	const most = 40
	lines := strings.Split(strings.TrimSpace(output), "\n")
	r.heading("What " + name + " printed")
	if left := len(lines) - most; left > 0 {
		r.note("(%d lines before these)", left)
		lines = lines[left:]
	}
	for _, line := range lines {
		r.note("%s", line)
	}
}

// verdict is the last line, and the error when a step failed.
func (r *report) verdict(took time.Duration) error {
	if len(r.failed) == 0 {
		r.print("\n%s in %s.", r.paint(bold, "Everything was as it should be"), duration(took))
		return nil
	}
	return errors.New("demo: not as it should be: " + strings.Join(r.failed, "; "))
}
