package tunbench

import (
	"os"
	"testing"
	"time"
)

// TestRun measures for a moment; it asserts only that there are figures.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a TUN device in a network namespace")
	}
	err := run(t.Context(), 1, 200*time.Millisecond, func(name string, value float64, unit string) {
		t.Logf("%s %.1f %s", name, value, unit)
		if value <= 0 {
			t.Errorf("%s is %v", name, value)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
