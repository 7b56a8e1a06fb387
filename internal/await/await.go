// Package await is the patience of tests: they wait for what must happen and no
// event tells of, and judge nobody by how long it takes on a busy machine.
package await

import (
	"context"
	"testing"
	"time"
)

// patience is far more than anything takes that happens at all.
const patience = 2 * time.Minute

// That waits until something is so, and ends the test if it never is: it is for
// the goroutine that runs the test. is may be called any number of times.
func That(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not happen that %s", what)
		}
	}
}

// Context ends when patience does, or with the test.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
