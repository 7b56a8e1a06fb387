package nip01

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// MaxKind is the largest kind an event may have.
const MaxKind = 65535

// Filter says which events a subscription wants (NIP-01). A nil field does not
// restrict; an empty, non-nil list matches nothing.
type Filter struct {
	IDs     []string // 64 lower-case hex digits each
	Authors []string // 64 lower-case hex digits each
	Kinds   []int
	// Tags holds the values wanted of each single-letter tag, by that letter
	// without its '#': {"p": {"<hex key>"}}.
	Tags  map[string][]string
	Since *int64 // unix seconds
	Until *int64
	// Limit bounds the stored events sent before EOSE; 0 asks for none, which
	// suits a subscription that only waits for new ones.
	Limit *int
}

// AppendJSON appends the filter as JSON, keys in a fixed order.
func (f *Filter) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	empty := len(dst)
	key := func(name string) {
		if len(dst) > empty {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, name), ':')
	}
	text := func(name string, values []string) {
		if values != nil {
			key(name)
			dst = appendList(dst, values, AppendString)
		}
	}
	number := func(name string, n *int64) {
		if n != nil {
			key(name)
			dst = strconv.AppendInt(dst, *n, 10)
		}
	}
	text("ids", f.IDs)
	text("authors", f.Authors)
	if f.Kinds != nil {
		key("kinds")
		dst = appendList(dst, f.Kinds, func(dst []byte, k int) []byte { return strconv.AppendInt(dst, int64(k), 10) })
	}
	for _, letter := range sortedKeys(f.Tags) {
		text("#"+letter, f.Tags[letter])
	}
	number("since", f.Since)
	number("until", f.Until)
	if f.Limit != nil {
		key("limit")
		dst = strconv.AppendInt(dst, int64(*f.Limit), 10)
	}
	return append(dst, '}')
}

func appendList[T any](dst []byte, values []T, add func([]byte, T) []byte) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = add(dst, v)
	}
	return append(dst, ']')
}

func sortedKeys(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// MarshalJSON is AppendJSON for encoding/json.
func (f Filter) MarshalJSON() ([]byte, error) { return f.AppendJSON(nil), nil }

// UnmarshalJSON parses and checks a filter. A key it does not know is an error,
// because ignoring it would answer with more than was asked for.
func (f *Filter) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil || fields == nil {
		return fmt.Errorf("nip01: filter is not a JSON object")
	}
	var n Filter
	for name, raw := range fields {
		if err := n.set(name, raw); err != nil {
			return fmt.Errorf("nip01: filter: %q: %w", name, err)
		}
	}
	*f = n
	return nil
}

func (f *Filter) set(name string, raw json.RawMessage) (err error) {
	switch name {
	case "ids":
		f.IDs, err = hexList(raw)
	case "authors":
		f.Authors, err = hexList(raw)
	case "kinds":
		f.Kinds, err = kindList(raw)
	case "since":
		f.Since, err = number[int64](raw)
	case "until":
		f.Until, err = number[int64](raw)
	case "limit":
		f.Limit, err = number[int](raw)
	default:
		if len(name) != 2 || name[0] != '#' || !letter(name[1]) {
			return fmt.Errorf("unknown key")
		}
		if f.Tags == nil {
			f.Tags = make(map[string][]string)
		}
		f.Tags[name[1:]], err = list[string](raw)
	}
	return err
}

func letter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

func list[T any](raw json.RawMessage) ([]T, error) {
	var values []T
	if err := json.Unmarshal(raw, &values); err != nil || values == nil {
		return nil, fmt.Errorf("not a list of the right type")
	}
	return values, nil
}

func hexList(raw json.RawMessage) ([]string, error) {
	values, err := list[string](raw)
	if err != nil {
		return nil, err
	}
	for _, v := range values {
		if !IsHex32(v) {
			return nil, fmt.Errorf("not 64 lower-case hex digits")
		}
	}
	return values, nil
}

// IsHex32 reports whether s is 32 bytes in lower-case hex.
func IsHex32(s string) bool {
	if len(s) != hex.EncodedLen(32) {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func kindList(raw json.RawMessage) ([]int, error) {
	kinds, err := list[int](raw)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if k < 0 || k > MaxKind {
			return nil, fmt.Errorf("kind %d is outside 0 to %d", k, MaxKind)
		}
	}
	return kinds, nil
}

func number[T int | int64](raw json.RawMessage) (*T, error) {
	var n *T
	if err := json.Unmarshal(raw, &n); err != nil || n == nil || *n < 0 {
		return nil, fmt.Errorf("not a whole number that is 0 or more")
	}
	return n, nil
}
