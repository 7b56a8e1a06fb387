package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxEventSize is the longest text that [ParseEvent] reads.
const MaxEventSize = 128 << 10

var (
	errSize      = fmt.Errorf("envelope: event: longer than %d bytes", MaxEventSize)
	errSyntax    = errors.New("envelope: event: not the JSON of a Nostr event")
	errField     = errors.New("envelope: event: a field with the wrong type or form, or twice")
	errMissing   = errors.New("envelope: event: a field is missing")
	errText      = errors.New("envelope: event: text that is not UTF-8")
	errUnusual   = errors.New("envelope: event: valid perhaps, but not for the fast path") // never returned to callers
	errTrailing  = errors.New("envelope: event: something follows it")
	errKindRange = errors.New("envelope: event: kind is not within 0…65535")
)

// ParseEvent reads one event's JSON (NIP-01): its fields in any order, each
// once; fields that the NIP does not know are skipped. Hexadecimal digits must
// be lower case, as the NIP says. It does not verify the event.
//
// The event borrows from raw, which must not change as long as it is in use.
// Nothing is allocated unless a string has escapes, the tags have white space,
// or there are unknown fields.
func ParseEvent(raw []byte) (Event, error) {
	if len(raw) > MaxEventSize {
		return Event{}, errSize
	}
	s := scanner{text: raw}
	var e Event
	err := s.event(&e)
	if err == errUnusual {
		return parseUnusual(raw)
	}
	if err != nil {
		return Event{}, err
	}
	return e, nil
}

// field is a set of fields of an event.
type field uint8

const (
	fieldID field = 1 << iota
	fieldPubKey
	fieldCreatedAt
	fieldKind
	fieldTags
	fieldContent
	fieldSig

	allFields = 1<<iota - 1
)

// fieldNamed returns the field with that name, zero if there is none.
func fieldNamed(name []byte) field {
	switch string(name) {
	case "id":
		return fieldID
	case "pubkey":
		return fieldPubKey
	case "created_at":
		return fieldCreatedAt
	case "kind":
		return fieldKind
	case "tags":
		return fieldTags
	case "content":
		return fieldContent
	case "sig":
		return fieldSig
	}
	return 0
}

// scanner reads JSON as Nostr programs write it. What it does not read it calls
// errUnusual and leaves to encoding/json.
type scanner struct {
	text []byte
	pos  int
}

func (s *scanner) event(e *Event) error {
	s.space()
	if !s.accept('{') {
		return errSyntax
	}
	var seen field
	for {
		s.space()
		name, err := s.plainString()
		if err != nil {
			return err
		}
		f := fieldNamed(name)
		if f == 0 {
			return errUnusual
		}
		if seen&f != 0 {
			return errField
		}
		seen |= f
		s.space()
		if !s.accept(':') {
			return errSyntax
		}
		s.space()
		if err := s.value(f, e); err != nil {
			return err
		}
		s.space()
		if s.accept(',') {
			continue
		}
		if !s.accept('}') {
			return errSyntax
		}
		break
	}
	s.space()
	if s.pos != len(s.text) {
		return errTrailing
	}
	if seen != allFields {
		return errMissing
	}
	return nil
}

func (s *scanner) value(f field, e *Event) (err error) {
	switch f {
	case fieldID:
		return s.hex(e.ID[:])
	case fieldPubKey:
		return s.hex(e.PubKey[:])
	case fieldSig:
		return s.hex(e.Sig[:])
	case fieldCreatedAt:
		e.CreatedAt, err = s.number()
	case fieldKind:
		var kind int64
		kind, err = s.number()
		if kind > maxKind {
			return errKindRange
		}
		e.Kind = int(kind)
	case fieldTags:
		e.tags, err = s.tags()
	case fieldContent:
		begin := s.pos
		e.Content, err = s.plainString()
		e.quoted = s.text[begin:s.pos]
	}
	return err
}

// peek returns the next byte, zero at the end.
func (s *scanner) peek() byte {
	if s.pos >= len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

// accept skips the next byte if it is b.
func (s *scanner) accept(b byte) bool {
	if s.pos >= len(s.text) || s.text[s.pos] != b {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// hex reads a string of exactly as many digits as fill dst.
func (s *scanner) hex(dst []byte) error {
	digits, err := s.plainString()
	if err != nil {
		return err
	}
	if len(digits) != 2*len(dst) {
		return errField
	}
	var bad byte
	for i := range dst {
		hi, lo := nibbles[digits[2*i]], nibbles[digits[2*i+1]]
		bad |= hi | lo
		dst[i] = hi<<4 | lo
	}
	if bad > 15 {
		return errField
	}
	return nil
}

// nibbles maps digits, lower case only, to their values and all else to 255.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i, digit := range []byte("0123456789abcdef") {
		t[digit] = byte(i)
	}
	return t
}()

// number reads an integer without sign, fraction or exponent.
func (s *scanner) number() (n int64, err error) {
	begin := s.pos
	for s.pos < len(s.text) {
		digit := s.text[s.pos] - '0'
		if digit > 9 {
			break
		}
		s.pos++
		if s.pos-begin > 18 { // more digits might overflow
			return 0, errField
		}
		n = 10*n + int64(digit)
	}
	if s.pos == begin || s.text[begin] == '0' && s.pos-begin > 1 {
		return 0, errField
	}
	return n, nil
}

// tags reads an array of arrays of strings and returns its text, which is
// canonical.
func (s *scanner) tags() ([]byte, error) {
	begin := s.pos
	if !s.accept('[') {
		return nil, errField
	}
	if s.accept(']') {
		return s.text[begin:s.pos], nil
	}
	for {
		if err := s.tag(); err != nil {
			return nil, err
		}
		if s.accept(']') {
			return s.text[begin:s.pos], nil
		}
		if !s.accept(',') {
			return nil, errUnusual
		}
	}
}

// tag reads an array of strings.
func (s *scanner) tag() error {
	if !s.accept('[') {
		return errUnusual
	}
	if s.accept(']') {
		return nil
	}
	for {
		if s.peek() != '"' {
			return errUnusual
		}
		if _, err := s.plainString(); err != nil {
			return err
		}
		if s.accept(']') {
			return nil
		}
		if !s.accept(',') {
			return errUnusual
		}
	}
}

// plainString reads a string without escapes and returns its inside.
func (s *scanner) plainString() ([]byte, error) {
	if !s.accept('"') {
		return nil, errField
	}
	n := bytes.IndexByte(s.text[s.pos:], '"')
	if n < 0 {
		return nil, errSyntax
	}
	text := s.text[s.pos : s.pos+n]
	if bytes.IndexByte(text, '\\') >= 0 {
		return nil, errUnusual
	}
	if !printable(text) && !validText(text) {
		return nil, errText
	}
	s.pos += n + 1
	return text, nil
}

// canonicalString reads a string that is known to be valid and may have
// escapes, and returns its inside.
func (s *scanner) canonicalString() []byte {
	s.accept('"')
	begin := s.pos
	for s.pos < len(s.text) && s.text[s.pos] != '"' {
		if s.text[s.pos] == '\\' {
			s.pos++
		}
		s.pos++
	}
	end := min(s.pos, len(s.text))
	s.accept('"')
	return s.text[begin:end]
}

// printable reports whether text consists of bytes from 0x20 to 0x7f. It reads
// eight at a time: of what is in range, subtracting 0x20 sets no high bit.
func printable(text []byte) bool {
	const spaces, high = 0x2020202020202020, 0x8080808080808080
	var bad uint64
	for ; len(text) >= 32; text = text[32:] {
		a := binary.LittleEndian.Uint64(text)
		b := binary.LittleEndian.Uint64(text[8:])
		c := binary.LittleEndian.Uint64(text[16:])
		d := binary.LittleEndian.Uint64(text[24:])
		bad |= a | b | c | d | (a - spaces) | (b - spaces) | (c - spaces) | (d - spaces)
	}
	for _, ch := range text {
		bad |= uint64(ch) | uint64(ch-0x20)
	}
	return bad&high == 0
}

// validText reports whether text is UTF-8 without control characters, which
// JSON demands to be escaped.
func validText(text []byte) bool {
	for _, ch := range text {
		if ch < 0x20 {
			return false
		}
	}
	return utf8.Valid(text)
}
