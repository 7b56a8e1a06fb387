package name

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Book holds the user's petnames: the key is one lower-case label, without
// ".nostr". Read-only once it is in use; a nil Book is empty. NewBook makes one
// whose labels are usable.
type Book map[string]Name

// NewBook reads the petnames of a configuration: label to any spelling that
// Parse accepts. The same label twice, in two cases, is an error.
func NewBook(entries map[string]string) (Book, error) {
	b := make(Book, len(entries))
	for pet, text := range entries {
		label := strings.ToLower(pet)
		if err := CheckPetname(label); err != nil {
			return nil, fmt.Errorf("name: petname %q: %w", pet, err)
		}
		if _, twice := b[label]; twice {
			return nil, fmt.Errorf("name: petname %q is given twice, in another case", pet)
		}
		n, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("name: petname %q: %w", pet, err)
		}
		b[label] = n
	}
	return b, nil
}

// keyLabel is how long the label of a key is.
const keyLabel = 52

// Lookup returns what host names: by its own key, or by a petname. host ends in
// .nostr; the dot of the root and upper case are fine.
func (b Book) Lookup(host string) (Name, error) {
	n, err := ParseHost(host)
	if err == nil {
		return n, nil
	}
	label, ok := strings.CutSuffix(normal(host), "."+tld)
	if !ok || strings.Contains(label, ".") {
		return Name{}, err
	}
	if n, known := b[label]; known {
		return n, nil
	}
	_, err = Parse(host) // which tells a secret key
	if len(label) < keyLabel && !strings.HasPrefix(label, "npub1") && !strings.Contains(label, "sec1") {
		return Name{}, fmt.Errorf("name: no petname %s in [names] of the configuration", strings.ToValidUTF8(label, "?"))
	}
	return Name{}, fmt.Errorf("%w; nor is it a petname of the configuration", err)
}

// Nearest returns the petname that somebody may have meant who wrote text, with or
// without ".nostr"; "" if none is like it.
func (b Book) Nearest(text string) string {
	text = strings.TrimSuffix(normal(text), "."+tld)
	if len(text) > maxLabel {
		return ""
	}
	wrote := []rune(text)
	nearest, least := "", min(len(wrote)/2, 3)+1
	for _, label := range slices.Sorted(maps.Keys(b)) {
		if d := distance(wrote, []rune(label)); d < least {
			nearest, least = label, d
		}
	}
	return nearest
}

// distance is how many letters have to be put in, taken out or changed to make b of
// a (Levenshtein).
func distance(a, b []rune) int {
	row := make([]int, len(b)+1) // from the beginning of a so far to those of b
	for j := range row {
		row[j] = j
	}
	for i, x := range a {
		before := row[0]
		row[0] = i + 1
		for j, y := range b {
			change := before
			if x != y {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// CheckPetname says why a text cannot be a petname, as a Book keeps it, or nil. It
// admits host-name labels (RFC 1123) in small letters that cannot be mistaken for a
// key: nobody may give a key's own name another meaning.
func CheckPetname(label string) error {
	if label == "" || len(label) > maxLabel {
		return fmt.Errorf("a label has 1 to %d characters, not %d", maxLabel, len(label))
	}
	for _, c := range []byte(label) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return errors.New("only letters a-z, digits and hyphens are allowed")
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return errors.New("a hyphen may be neither first nor last")
	}
	if _, err := ParseHost(label + "." + tld); err == nil || strings.HasPrefix(label, "npub1") {
		return errors.New("looks like a key")
	}
	return nil
}
