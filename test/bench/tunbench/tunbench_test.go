package tunbench

import (
	"context"
	"os"
	"testing"
)

// TestRun prints the figures with -v; it asserts only that there are some.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a TUN device in a network namespace")
	}
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	err := Run(context.Background(), func(name string, value float64, unit string) {
		t.Logf("%s %.1f %s", name, value, unit)
		if value <= 0 {
			t.Errorf("%s is %v", name, value)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
