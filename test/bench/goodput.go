package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// goodput has the session's own benchmark run, which simulates relays and time,
// and prints its figures. It needs the source and the go command; without that
// it says so and does nothing.
func goodput(ctx context.Context) error {
	if _, err := exec.LookPath("go"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no goodput_*:", err)
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "test", "./nostrlink/session", "-run", "^$", "-bench", "Goodput", "-benchtime", "1x")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the session's benchmark: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		reportGoodput(strings.Fields(lines.Text()))
	}
	return nil
}

// reportGoodput prints the share that one line of a benchmark's output tells, if
// it is one:
//
//	BenchmarkGoodput/two_khatru,_1%_lost-2   1   81.2 %
func reportGoodput(fields []string) {
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "BenchmarkGoodput/") {
		return
	}
	_, name, _ := strings.Cut(fields[0], "/")
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		name = name[:i] // the number of processors
	}
	name = lost.ReplaceAllString(name, "loss$1")
	name = strings.NewReplacer("two", "two_relays", ",", "").Replace(name)
	for i := 2; i+1 < len(fields); i += 2 {
		if percent, err := strconv.ParseFloat(fields[i], 64); err == nil && fields[i+1] == "%" {
			figure("goodput_"+name, percent/100, "")
		}
	}
}

var lost = regexp.MustCompile(`([\d.]+)%_lost`)
