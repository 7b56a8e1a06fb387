package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// What a program leaves behind when it ends.
const (
	LeavesOpen   = "open"    // the machine is as it was
	LeavesClosed = "closed"  // the machine stays closed without it
	LeavesHeir   = "another" // the machine stays as it is, for a program that follows at once
)

// Attend stays with the program of stateDir until that ends or ctx does. What it
// leaves behind is given to last, for which the program waits for up to a second.
// A program that says nothing any more, as one that was killed, is an error;
// ErrNotRunning says that there was none.
func Attend(ctx context.Context, stateDir string, last func(leaves string)) error {
	resp, err := open(ctx, new(atomic.Int64), stateDir, http.MethodGet, "/attend", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const longest = 64
	word, err := bufio.NewReader(io.LimitReader(resp.Body, longest)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("control socket in %s: the program is gone: %w", stateDir, err)
	}
	last(strings.TrimSuffix(word, "\n"))
	return nil
}

// attended has clients wait until the server ends, and then for each of them
// until it goes.
func attended(ending <-chan struct{}, leaves func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w).Flush
		if flush() != nil {
			return
		}
		select {
		case <-ending:
		case <-r.Context().Done():
			return
		}
		if _, err := io.WriteString(w, leaves()+"\n"); err == nil && flush() == nil {
			<-r.Context().Done()
		}
	}
}
