package config

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/nws-vpn/nws-vpn/exit"
)

// Parse reads text, which came from the named file, over the defaults.
func Parse(file string, text []byte) (*Config, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("configuration: %s is longer than %d bytes", file, maxFile)
	}
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		p := problem{file: file, text: err.Error()}
		if e := (toml.ParseError{}); errors.As(err, &e) {
			p.line, p.text = e.Position.Line, e.Message
			// What ends too early is taken for a fault of the next line.
			if at := e.Position.Start; at >= 0 && at < len(text) && text[at] == '\n' {
				p.line = 1 + bytes.Count(text[:at], []byte{'\n'})
			}
		}
		return nil, p
	}
	c := Default()
	var d decoder
	d.table(reflect.ValueOf(c).Elem(), tree, nil)
	if len(d.problems) == 0 {
		d.check(c)
	}
	if len(d.problems) > 0 {
		return nil, report(file, text, d.problems)
	}
	return c, nil
}

// decoder collects what is wrong rather than stopping at the first.
type decoder struct{ problems []problem }

func (d *decoder) fail(key toml.Key, format string, args ...any) {
	d.problems = append(d.problems, problem{key: slices.Clone(key), text: fmt.Sprintf(format, args...)})
}

// table sets the fields of the struct into from a section of the file.
func (d *decoder) table(into reflect.Value, section map[string]any, path toml.Key) {
	fields := make(map[string]reflect.Value)
	for i := range into.NumField() {
		fields[into.Type().Field(i).Tag.Get("toml")] = into.Field(i)
	}
	for name, value := range section {
		key := append(slices.Clip(path), name)
		field, known := fields[name]
		if !known {
			_, isSection := value.(map[string]any)
			if file := keyFileFor(name, value, path); file != "" {
				d.fail(key, "want no secret key in here, but in a file of its own, of mode 0600, that %s names: `nws-vpn keygen FILE` makes a new one, for one that was in here has been in the open", file)
				continue
			}
			d.fail(key, "unknown %s; the nearest known one is %s", word[isSection], nearest(key, isSection))
			continue
		}
		if field.Kind() != reflect.Struct {
			d.set(field.Addr().Interface(), value, key)
			continue
		}
		sub, ok := value.(map[string]any)
		if !ok {
			d.fail(key, "want a section: write [%s] on a line of its own", name)
			continue
		}
		d.table(field, sub, key)
	}
}

// secretName are the names under which people put secret keys where they do not
// belong.
var secretName = regexp.MustCompile(`(?i)nsec|secret|priv(ate)?_?key`)

// keyFileFor names the key that belongs in the place of an unknown one which holds
// a secret key, or "" if it does not.
func keyFileFor(name string, value any, section toml.Key) string {
	text, isText := value.(string)
	if !isText || !secretName.MatchString(name) && !secrets.MatchString(text) {
		return ""
	}
	switch {
	case len(section) == 0 || section[0] == "exit":
		return "key_file in [exit]"
	case section[0] == "up":
		return "identity_file in [up]"
	}
	return ""
}

var word = map[bool]string{false: "key", true: "section"}

// set converts one value of the file to what into points at.
func (d *decoder) set(into, value any, key toml.Key) {
	var err error
	switch into := into.(type) {
	case *string:
		*into, err = asString(value)
	case *bool:
		*into, err = asBool(value)
	case *int:
		*into, err = asInteger[int](value, math.MinInt32, math.MaxInt32)
	case *uint32:
		*into, err = asInteger[uint32](value, 0, math.MaxUint32)
	case *Duration:
		*into, err = asDuration(value)
	case *Size:
		*into, err = asSize(value)
	case *[]string:
		*into, err = asList(value, asString)
	case *[]uint16:
		*into, err = asList(value, asPort)
	case *[]exit.Rule:
		*into, err = asList(value, parsed(exit.ParseRule))
	case *[]netip.Prefix:
		*into, err = asList(value, parsed(ParsePrefix))
	case *[]exit.Nameserver:
		*into, err = asList(value, parsed(exit.ParseNameserver))
	case *map[string]string:
		*into = asMap(d, value, key, sameText, asString)
	case *map[string]ExitName:
		*into = d.exitNames(value, key)
	case *map[uint16]exit.Target:
		*into = asMap(d, value, key, parsePort, parsed(exit.ParseTarget))
	default:
		err = fmt.Errorf("a key of type %T cannot be read", into)
	}
	if err != nil {
		d.fail(key, "%v", err)
	}
}

func asString(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("want a text in quotes, not %s", kind(v))
	}
	return s, nil
}

func asBool(v any) (bool, error) {
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("want true or false, not %s", kind(v))
	}
	return b, nil
}

func asInteger[T int | uint16 | uint32](v any, least, most int64) (T, error) {
	n, ok := v.(int64)
	if !ok {
		return 0, fmt.Errorf("want a whole number, not %s", kind(v))
	}
	if n < least || n > most {
		return 0, fmt.Errorf("want a number from %d to %d, not %d", least, most, n)
	}
	return T(n), nil
}

func asPort(v any) (uint16, error) { return asInteger[uint16](v, 1, math.MaxUint16) }

func asDuration(v any) (Duration, error) {
	s, ok := v.(string)
	if !ok {
		return 0, fmt.Errorf(`want a duration in quotes, such as "90s" or "2m", not %s`, kind(v))
	}
	n, err := time.ParseDuration(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf(`want a duration above zero, such as "90s" or "2m", not %q`, s)
	}
	return Duration(n), nil
}

// asList reads a list with one conversion for its elements. An empty list is
// not nil: it says that there shall be none.
func asList[T any](v any, convert func(any) (T, error)) ([]T, error) {
	elements, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("want a list in square brackets, not %s", kind(v))
	}
	list := make([]T, 0, len(elements))
	for i, e := range elements {
		t, err := convert(e)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i+1, err)
		}
		list = append(list, t)
	}
	return list, nil
}

// asMap reads a section whose keys are the user's own.
func asMap[K comparable, T any](d *decoder, v any, path toml.Key, key func(string) (K, error), convert func(any) (T, error)) map[K]T {
	section, ok := v.(map[string]any)
	if !ok {
		d.fail(path, "want a section: write [%v] on a line of its own", path)
		return nil
	}
	m := make(map[K]T, len(section))
	for name, value := range section {
		k, err := key(name)
		if err == nil {
			m[k], err = convert(value)
		}
		if err != nil {
			d.fail(append(slices.Clip(path), name), "%v", err)
		}
	}
	return m
}

// exitNames reads the sections of the exit's other names.
func (d *decoder) exitNames(v any, path toml.Key) map[string]ExitName {
	sections := asMap(d, v, path, sameText, func(v any) (map[string]any, error) {
		section, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("want a section, with a key_file in it, not %s", kind(v))
		}
		return section, nil
	})
	names := make(map[string]ExitName, len(sections))
	for label, section := range sections {
		var n ExitName
		d.table(reflect.ValueOf(&n).Elem(), section, append(slices.Clip(path), label))
		names[label] = n
	}
	return names
}

// parsed makes a conversion of a parser of text.
func parsed[T any](parse func(string) (T, error)) func(any) (T, error) {
	return func(v any) (t T, err error) {
		s, err := asString(v)
		if err != nil {
			return t, err
		}
		return parse(s)
	}
}

func sameText(s string) (string, error) { return s, nil }

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, errors.New("want a port from 1 to 65535 as the key")
	}
	return uint16(n), nil
}

// ParsePrefix reads "IP/bits".
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("want a prefix such as 10.1.0.0/16 or fd00:1::/32, not %q", s)
	}
	return p, nil
}

// ParseNameserver reads "IP" or "IP:port"; the port is 53 unless it is given.
func ParseNameserver(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("want an IP address, with or without a port, such as 9.9.9.9 or [2620:fe::fe]:53, not %q", s)
	}
	return ap, nil
}

// kind describes a value of the file to its author.
func kind(v any) string {
	switch v := v.(type) {
	case string:
		return "a text in quotes"
	case bool:
		return strconv.FormatBool(v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case []any, []map[string]any:
		return "a list"
	case map[string]any:
		return "a section"
	}
	return "a date or time"
}
