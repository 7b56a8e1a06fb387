package netlab

import (
	"bytes"
	"strings"
	"sync"
)

// maxOutput bounds what is kept of one stream of a command.
const maxOutput = 8 << 20

// limitedBuffer keeps the first maxOutput bytes and swallows the rest.
type limitedBuffer struct{ to *bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.to.Write(p[:min(len(p), maxOutput-b.to.Len())])
	return len(p), nil
}

// lineBuffer collects lines of several streams, each line whole.
type lineBuffer struct {
	onLine func(string)

	mu      sync.Mutex
	lines   []string
	size    int
	ended   bool
	changed chan struct{} // closed and replaced when something changed
}

func (b *lineBuffer) add(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.onLine != nil {
		b.onLine(line)
	}
	if b.size += len(line) + 1; b.size > maxOutput {
		return
	}
	b.lines = append(b.lines, line)
	b.wake()
}

func (b *lineBuffer) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *lineBuffer) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.wake()
}

func (b *lineBuffer) from(n int) (lines []string, changed <-chan struct{}, ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[n:], b.changed, b.ended
}

func (b *lineBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines, "\n")
}

// maxLine bounds a line that does not end.
const maxLine = 64 << 10

type lineWriter struct {
	to   *lineBuffer
	part []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		w.part = append(w.part, line...)
		if whole || len(w.part) > maxLine {
			w.to.add(string(w.part))
			w.part = w.part[:0]
		}
		rest = after
	}
	return len(p), nil
}

// end hands over what came after the last newline.
func (w *lineWriter) end() {
	if len(w.part) > 0 {
		w.to.add(string(w.part))
	}
}
