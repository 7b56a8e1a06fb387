package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. It is written as a number, or as a text with a unit:
// "500kB", "10GB" (thousands), "64KiB", "2GiB" (powers of 1024).
type Size int64

// sizeUnits are in the order in which they are tried: no unit is the end of one
// before it.
var sizeUnits = [...]struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a Size.
func ParseSize(s string) (Size, error) {
	digits, unit := s, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = strings.TrimRight(rest, " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	plain := strings.Trim(digits, "0123456789.") == ""
	if err != nil || !plain || n*float64(unit) >= math.MaxInt64 {
		return 0, fmt.Errorf(`want a number of bytes, such as "500kB", "10GB" or "2GiB", not %q`, s)
	}
	return Size(n * float64(unit)), nil
}

// String writes s with the largest unit of thousands in which it is not below 1.
func (s Size) String() string {
	for _, u := range [...]struct {
		name  string
		bytes float64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if float64(s) >= u.bytes {
			return strconv.FormatFloat(math.Round(float64(s)/u.bytes*100)/100, 'f', -1, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + " B"
}

func asSize(v any) (Size, error) {
	switch v := v.(type) {
	case int64:
		if v >= 0 {
			return Size(v), nil
		}
	case string:
		return ParseSize(v)
	}
	return 0, fmt.Errorf(`want a number of bytes, such as "500kB", "10GB" or "2GiB", not %s`, kind(v))
}
