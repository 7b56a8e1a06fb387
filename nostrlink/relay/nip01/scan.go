package nip01

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxSubscriptionID is the longest subscription id in characters (NIP-01).
const MaxSubscriptionID = 64

var (
	errNotArray = errors.New("nip01: message is not a JSON array that begins with a string")
	errEnd      = errors.New("nip01: message has missing or surplus elements")
	errEvent    = errors.New("nip01: event is not a JSON object")
)

// cursor walks over the elements of a message that is a JSON array.
type cursor struct {
	rest []byte
}

// begin enters the array, which must be the whole of msg, and returns its first
// element, the verb.
func begin(msg []byte) (cursor, []byte, error) {
	msg = trim(msg)
	if len(msg) < 2 || msg[0] != '[' || msg[len(msg)-1] != ']' {
		return cursor{}, nil, errNotArray
	}
	c := cursor{rest: trim(msg[1 : len(msg)-1])}
	token, err := c.stringToken()
	if err != nil {
		return cursor{}, nil, errNotArray
	}
	verb, err := unquote(token)
	return c, verb, err
}

// comma steps to the next element.
func (c *cursor) comma() error {
	c.rest = trim(c.rest)
	if len(c.rest) == 0 || c.rest[0] != ',' {
		return errEnd
	}
	c.rest = trim(c.rest[1:])
	return nil
}

// stringToken takes a JSON string, quotes included, off the front.
func (c *cursor) stringToken() ([]byte, error) {
	if len(c.rest) == 0 || c.rest[0] != '"' {
		return nil, errEnd
	}
	for i := 1; i < len(c.rest); i++ {
		switch c.rest[i] {
		case '\\':
			i++
		case '"':
			token := c.rest[:i+1]
			c.rest = c.rest[i+1:]
			return token, nil
		}
	}
	return nil, errEnd
}

// text takes the next element, which must be a string.
func (c *cursor) text() (string, error) {
	_, s, err := c.token()
	return string(s), err
}

// token takes the next element, which must be a string, as it was written and
// as it is meant.
func (c *cursor) token() (written, meant []byte, err error) {
	if err := c.comma(); err != nil {
		return nil, nil, err
	}
	if written, err = c.stringToken(); err != nil {
		return nil, nil, err
	}
	meant, err = unquote(written)
	return written, meant, err
}

// subscription takes the next element, which must be a subscription id.
func (c *cursor) subscription() (written, meant []byte, err error) {
	written, meant, err = c.token()
	if err != nil {
		return nil, nil, err
	}
	if len(meant) == 0 || utf8.RuneCount(meant) > MaxSubscriptionID {
		return nil, nil, fmt.Errorf("nip01: subscription id must have 1 to %d characters", MaxSubscriptionID)
	}
	return written, meant, nil
}

// event takes the next and last element, an event.
func (c *cursor) event() ([]byte, error) {
	if err := c.comma(); err != nil {
		return nil, err
	}
	raw := trim(c.rest)
	if len(raw) < 2 || raw[0] != '{' || raw[len(raw)-1] != '}' {
		return nil, errEvent
	}
	c.rest = nil
	return raw, nil
}

// end checks that nothing is left.
func (c *cursor) end() error {
	if len(trim(c.rest)) != 0 {
		return errEnd
	}
	return nil
}

// unquote returns what a JSON string means. Without an escape it borrows.
func unquote(token []byte) ([]byte, error) {
	inner := token[1 : len(token)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		for _, b := range inner {
			if b < ' ' {
				return nil, errors.New("nip01: control character in a string")
			}
		}
		if !utf8.Valid(inner) {
			return nil, errors.New("nip01: string is not UTF-8")
		}
		return inner, nil
	}
	var s string
	if err := json.Unmarshal(token, &s); err != nil {
		return nil, fmt.Errorf("nip01: bad string: %w", err)
	}
	return []byte(s), nil
}

func trim(b []byte) []byte {
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && space(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func space(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become the
// replacement character.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
