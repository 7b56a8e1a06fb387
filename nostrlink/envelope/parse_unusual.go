package envelope

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"
)

// parseUnusual reads by encoding/json what the scanner leaves to it. It copies
// everything.
func parseUnusual(raw []byte) (Event, error) {
	if !utf8.Valid(raw) || loneSurrogate(raw) {
		return Event{}, errText // encoding/json would replace it silently
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return Event{}, errSyntax
	}
	var e Event
	var seen field
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return Event{}, errSyntax
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return Event{}, errSyntax
		}
		f := fieldNamed([]byte(name))
		if seen&f != 0 {
			return Event{}, errField
		}
		seen |= f
		if err := unusualValue(f, value, &e); err != nil {
			return Event{}, err
		}
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return Event{}, errSyntax
	}
	if _, err := dec.Token(); err != io.EOF {
		return Event{}, errTrailing
	}
	if seen != allFields {
		return Event{}, errMissing
	}
	return e, nil
}

// unusualValue sets e's field f from value. What may have escapes is brought
// into canonical form; numbers cannot, and go through the scanner.
func unusualValue(f field, value []byte, e *Event) error {
	switch f {
	case 0:
		return nil
	case fieldCreatedAt, fieldKind:
	case fieldTags:
		var tags [][]*string
		if err := json.Unmarshal(value, &tags); err != nil || tags == nil {
			return errField
		}
		var err error
		e.tags, err = canonicalTags(tags)
		return err
	default:
		var text *string // null would leave a string as it was
		if err := json.Unmarshal(value, &text); err != nil || text == nil {
			return errField
		}
		value = append(appendEscaped([]byte{'"'}, *text), '"')
		if f == fieldContent {
			e.Content, e.quoted = []byte(*text), value
			return nil
		}
	}
	s := scanner{text: value}
	if err := s.value(f, e); err != nil {
		return err
	}
	if s.pos != len(value) {
		return errField
	}
	return nil
}

func canonicalTags(tags [][]*string) ([]byte, error) {
	plain := make([][]string, len(tags))
	for i, tag := range tags {
		if tag == nil {
			return nil, errField
		}
		for _, s := range tag {
			if s == nil {
				return nil, errField
			}
			plain[i] = append(plain[i], *s)
		}
	}
	return appendTags(nil, nil, plain), nil
}

// loneSurrogate reports whether one of the \u escapes in the JSON text is half
// of a UTF-16 pair without the other half.
func loneSurrogate(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+2 > len(text) {
			return false
		}
		text = text[i:]
		switch unit := escapedUnit(text); {
		case unit < 0:
			text = text[2:]
		case unit < 0xd800 || unit > 0xdfff:
			text = text[6:]
		case unit > 0xdbff:
			return true
		default:
			low := escapedUnit(text[6:])
			if low < 0xdc00 || low > 0xdfff {
				return true
			}
			text = text[12:]
		}
	}
}

// escapedUnit returns the UTF-16 unit whose \u escape text begins with, −1 if
// it begins with none.
func escapedUnit(text []byte) int {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(n)
}
