package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"

	"github.com/BurntSushi/toml"
)

// problem is one thing that is wrong in a file.
type problem struct {
	file string
	line int      // 0 if it is about no line
	key  toml.Key // nil if it is about no key
	text string
}

// Error gives file, line, key and text, as far as they are known, on one line.
func (p problem) Error() string {
	s := p.file
	if p.line > 0 {
		s = fmt.Sprintf("%s:%d", s, p.line)
	}
	if p.key != nil {
		s += ": " + p.key.String()
	}
	return secrets.ReplaceAllString(s+": "+p.text, "${1}…")
}

// secrets are keys that got where they do not belong: no error repeats them.
var secrets = regexp.MustCompile(`(?i)(nsec1|ncryptsec1)[0-9a-z]+`)

// maxReported is how many problems are worth reading at a time.
const maxReported = 10

// report makes one error of problems, in the order of their keys in the file.
func report(file string, text []byte, problems []problem) error {
	section := make(map[string]toml.Primitive)
	md, err := toml.Decode(string(text), &section)
	if err != nil { // not after the same text has been decoded before
		return fmt.Errorf("%s: %w", file, err)
	}
	keys := md.Keys()
	// Where a key stands first, be it as the beginning of another: a section
	// need not have a line of its own, as a has none in "a.b = 1".
	order := make(map[string]int)
	for i, key := range slices.Backward(keys) {
		for n := range key {
			order[key[:n+1].String()] = i
		}
	}
	place := func(p problem) int { return order[p.key.String()] }
	slices.SortFunc(problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.key.String(), b.key.String()))
	})
	var errs []error
	for i, p := range problems {
		if i == maxReported {
			errs = append(errs, fmt.Errorf("%s: and %d more", file, len(problems)-i))
			break
		}
		p.file, p.line = file, lineOf(&md, section, p.key)
		if p.line == 0 {
			p.line = lineOf(&md, section, keys[place(p)])
		}
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// lineOf finds the line that key stands on, or 0. The TOML library tells
// positions only in its errors, so it is made to err there.
func lineOf(md *toml.MetaData, section map[string]toml.Primitive, key toml.Key) int {
	for _, name := range key[:len(key)-1] {
		sub := make(map[string]toml.Primitive)
		if err := md.PrimitiveDecode(section[name], &sub); err != nil {
			return 0
		}
		section = sub
	}
	var e toml.ParseError
	errors.As(md.PrimitiveDecode(section[key[len(key)-1]], new(stumble)), &e)
	return e.Position.Line
}

// stumble is a value that cannot be read.
type stumble struct{}

func (*stumble) UnmarshalTOML(any) error { return errors.New("here") }

// knownKey is a key of a Config, or a section.
type knownKey struct {
	key     toml.Key
	section bool
}

func knownKeys() []knownKey {
	var keys []knownKey
	var walk func(t reflect.Type, path toml.Key)
	walk = func(t reflect.Type, path toml.Key) {
		for i := range t.NumField() {
			f := t.Field(i)
			key := append(slices.Clip(path), f.Tag.Get("toml"))
			kind := f.Type.Kind()
			keys = append(keys, knownKey{key, kind == reflect.Struct || kind == reflect.Map})
			if kind == reflect.Struct {
				walk(f.Type, key)
			}
		}
	}
	walk(reflect.TypeFor[Config](), nil)
	return keys
}

// nearest names the known key, or section, that key was most likely meant to
// be. The right name in a wrong section is nearer than a wrong name.
func nearest(key toml.Key, isSection bool) string {
	var best toml.Key
	least := 0
	for _, known := range knownKeys() {
		if known.section != isSection {
			continue
		}
		known := known.key
		n := 2 * distance(key[len(key)-1], known[len(known)-1])
		if !slices.Equal(key[:len(key)-1], known[:len(known)-1]) {
			n++
		}
		if best == nil || n < least {
			best, least = known, n
		}
	}
	switch {
	case isSection:
		return fmt.Sprintf("[%s]", best)
	case len(best) == 1:
		return fmt.Sprintf("%s at the top level", best)
	}
	return fmt.Sprintf("%s in section [%s]", best[len(best)-1], best[:len(best)-1])
}

// maxCompared is more letters than a key has; what follows them says nothing.
const maxCompared = 64

// distance is how many letters must be put in, left out or changed to make b
// of a (Levenshtein).
func distance(a, b string) int {
	a, b = a[:min(len(a), maxCompared)], b[:min(len(b), maxCompared)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			n := before
			if a[i] != b[j] {
				n++
			}
			before = row[j+1]
			row[j+1] = min(n, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
