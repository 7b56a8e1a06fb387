// Command run runs "go test" with the given arguments and says what go test by
// itself keeps quiet about: which tests were skipped, and why. A run that left
// out what needs root must not look like one that tested everything. With
// NWS_REQUIRE_INTEGRATION=1 in the environment, a skipped test fails the run.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	strict := os.Getenv("NWS_REQUIRE_INTEGRATION") == "1"
	ok, err := run(os.Args[1:], strict, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/run:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(args []string, strict bool, out io.Writer) (ok bool, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	s := newSummary(out)
	readErr := s.read(events)
	waitErr := cmd.Wait() // non-zero when a test failed, which the summary tells
	if readErr != nil {
		return false, readErr
	}
	return s.finish(strict) && waitErr == nil, nil
}

// event is a line of go test's JSON (see "go doc test2json").
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type testID struct{ pkg, test string }

// summary turns events into a line per package, the output of what failed, and
// the list of what was skipped.
type summary struct {
	out             io.Writer
	output          map[testID][]string // of tests still running
	passed, failed  int
	skipped         []string
	packageProblems int
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[testID][]string{}}
}

func (s *summary) read(events io.Reader) error {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(s.out, lines.Text()) // not go test's: show it
			continue
		}
		s.add(e)
	}
	return lines.Err()
}

func (s *summary) add(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		s.output[id] = append(s.output[id], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(e)
		}
		delete(s.output, id)
	}
}

func (s *summary) endTest(e event) {
	lines := s.output[testID{e.Package, e.Test}]
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		fmt.Fprintf(s.out, "%s\n%s", e.Package, strings.Join(lines, ""))
	case "skip":
		s.skipped = append(s.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(lines)))
	}
}

func (s *summary) endPackage(e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(s.out, "ok    %-70s %6.1f s\n", e.Package, e.Elapsed)
	case "fail":
		s.packageProblems++
		// What no test has ended with: a panic, a time-out, a leak found at last.
		for id, lines := range s.output {
			if id.pkg == e.Package {
				fmt.Fprint(s.out, strings.Join(lines, ""))
				delete(s.output, id)
			}
		}
		fmt.Fprintf(s.out, "FAIL  %s\n", e.Package)
	}
}

// reason is the message of a skipped test.
func reason(lines []string) string {
	for _, line := range lines {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}

// finish prints what is left to say and reports whether all is well.
func (s *summary) finish(strict bool) bool {
	fmt.Fprintf(s.out, "\n%d tests passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
	for _, line := range s.skipped {
		fmt.Fprintln(s.out, "skip ", line)
	}
	if len(s.skipped) > 0 && os.Geteuid() != 0 {
		fmt.Fprintln(s.out, "Not everything was tested: the tests in network namespaces need root (sudo make test).")
	}
	if len(s.skipped) > 0 && strict {
		fmt.Fprintln(s.out, "FAIL: a test was skipped, and NWS_REQUIRE_INTEGRATION forbids that")
		return false
	}
	return s.failed == 0 && s.packageProblems == 0 && s.passed > 0
}
