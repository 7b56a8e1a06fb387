package config

import "testing"

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1500": 1500, "1B": 1, "500kB": 500_000, "10GB": 10_000_000_000, "1.5 MB": 1_500_000,
		"64KiB": 65536, "2GiB": 2 << 30, "1TB": 1e12,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GB", "-1", "+1", "10 gb", "10Gb", "1e6", "0x10", "NaN", "inf", "1_000", "99999999TB", "1.2.3MB", " 1"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: read as %d", text, got)
		}
	}
}

func TestSizeIsReadable(t *testing.T) {
	for size, want := range map[Size]string{0: "0 B", 999: "999 B", 1000: "1 kB", 1_234_567: "1.23 MB", 10_000_000_000: "10 GB"} {
		if got := size.String(); got != want {
			t.Errorf("%d: %q, want %q", int64(size), got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("10GB")
	f.Add("1.5KiB")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Errorf("%q: %d", s, n)
		}
	})
}
