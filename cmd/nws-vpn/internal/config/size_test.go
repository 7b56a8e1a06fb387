package config

import (
	"strings"
	"testing"
)

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

// The sizes of the relay are written as those of the exit are.
func TestSizesOfTheRelay(t *testing.T) {
	c, err := Parse("f", []byte("[relay]\nmax_kept_bytes = \"64MB\"\nmax_event_bytes = \"32KiB\"\nbytes_per_second = \"1MB\"\naddress_bytes_per_second = 5\nkey_bytes_per_second = \"2kB\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Relay; r.MaxKeptBytes != 64e6 || r.MaxEventBytes != 32<<10 || r.BytesPerSecond != 1e6 || r.AddressBytesPerSecond != 5 || r.KeyBytesPerSecond != 2000 {
		t.Errorf("%+v", r)
	}
	for text, want := range map[string]string{
		`max_kept_bytes = "1kB"`: "f:2: relay.max_kept_bytes: want a number from 65536", `max_kept_bytes = "lots"`: `f:2: relay.max_kept_bytes: want a number of bytes, such as "500kB"`,
		`max_kept_bytes = "1TiB"`: "f:2: relay.max_kept_bytes: want a number from 65536 to",
		"bytes_per_second = -1":   "f:2: relay.bytes_per_second: want a number of bytes",
	} {
		if _, err := Parse("f", []byte("[relay]\n"+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
