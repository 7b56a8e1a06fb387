package nip01

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// A Verb is the first element of a message.
type Verb string

// The verbs of NIP-01 and NIP-42, and COUNT of NIP-45.
const (
	Event  Verb = "EVENT"
	Req    Verb = "REQ"
	Close  Verb = "CLOSE"
	Auth   Verb = "AUTH"
	Count  Verb = "COUNT"
	OK     Verb = "OK"
	EOSE   Verb = "EOSE"
	Closed Verb = "CLOSED"
	Notice Verb = "NOTICE"
)

// knownVerb avoids an allocation for each message.
func knownVerb(b []byte) Verb {
	for _, v := range [...]Verb{Event, OK, Req, Close, Auth, Count, EOSE, Closed, Notice} {
		if string(b) == string(v) {
			return v
		}
	}
	return Verb(b)
}

// RelayMessage is a message from a relay. Which fields are set depends on Verb;
// byte slices borrow from the message.
type RelayMessage struct {
	Verb         Verb
	Subscription []byte   // EVENT, EOSE, CLOSED
	Event        []byte   // EVENT: the event's JSON as it came
	ID           [32]byte // OK
	Accepted     bool     // OK
	Text         string   // OK, CLOSED, NOTICE: the reason; AUTH: the challenge
}

// ParseRelayMessage takes a relay's message apart. A verb it does not know is
// not an error: only Verb is set then. Surplus elements after those of NIP-01
// are ignored, except after an event.
func ParseRelayMessage(msg []byte) (RelayMessage, error) {
	c, verb, err := begin(msg)
	if err != nil {
		return RelayMessage{}, err
	}
	m := RelayMessage{Verb: knownVerb(verb)}
	switch m.Verb {
	case Event:
		if _, m.Subscription, err = c.subscription(); err == nil {
			m.Event, err = c.event()
		}
	case EOSE:
		_, m.Subscription, err = c.subscription()
	case Closed:
		if _, m.Subscription, err = c.subscription(); err == nil {
			m.Text, _ = c.text() // some relays leave the reason out
		}
	case OK:
		err = c.ok(&m)
	case Notice, Auth:
		m.Text, err = c.text()
	}
	if err != nil {
		return RelayMessage{}, fmt.Errorf("%w in %s", err, m.Verb)
	}
	return m, nil
}

func (c *cursor) ok(m *RelayMessage) error {
	_, id, err := c.token()
	if err != nil {
		return err
	}
	if len(id) != 2*len(m.ID) {
		return errors.New("nip01: event id is not 64 hex digits")
	}
	if _, err := hex.Decode(m.ID[:], id); err != nil {
		return errors.New("nip01: event id is not 64 hex digits")
	}
	if err := c.comma(); err != nil {
		return err
	}
	switch {
	case hasPrefix(c.rest, "true"):
		m.Accepted = true
		c.rest = c.rest[len("true"):]
	case hasPrefix(c.rest, "false"):
		c.rest = c.rest[len("false"):]
	default:
		return errors.New("nip01: verdict is neither true nor false")
	}
	m.Text, _ = c.text() // some relays leave the reason out
	return nil
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// ClientMessage is a message from a client. Which fields are set depends on
// Verb; byte slices borrow from the message.
type ClientMessage struct {
	Verb         Verb
	Subscription []byte // REQ, CLOSE, COUNT
	// Token is the subscription id as the client wrote it, quotes included, so
	// that it can be echoed without escaping it again.
	Token   []byte
	Event   []byte // EVENT, AUTH: the event's JSON as it came
	Filters []byte // REQ, COUNT: as they came, for ParseFilters
}

// ParseClientMessage takes a client's message apart. A verb it does not know is
// not an error: only Verb is set then. After an error Verb, and for a REQ
// Subscription and Token, are set as far as they were understood, so that the
// answer can name them.
func ParseClientMessage(msg []byte) (ClientMessage, error) {
	c, verb, err := begin(msg)
	if err != nil {
		return ClientMessage{}, err
	}
	m := ClientMessage{Verb: knownVerb(verb)}
	switch m.Verb {
	case Event, Auth:
		m.Event, err = c.event()
	case Close:
		if m.Token, m.Subscription, err = c.subscription(); err == nil {
			err = c.end()
		}
	case Req, Count:
		if m.Token, m.Subscription, err = c.subscription(); err == nil {
			if err = c.comma(); err == nil {
				m.Filters = c.rest
			}
		}
	}
	if err != nil {
		return m, fmt.Errorf("%w in %s", err, m.Verb)
	}
	return m, nil
}

// ParseFilters reads the filters of a REQ, from one to limit of them. What it
// returns shares nothing with raw and takes several times as much memory.
func ParseFilters(raw []byte, limit int) ([]Filter, error) {
	list := make([]byte, 0, len(raw)+2)
	list = append(append(append(list, '['), raw...), ']')
	var objects []json.RawMessage
	if err := json.Unmarshal(list, &objects); err != nil {
		return nil, fmt.Errorf("nip01: bad filter: %w", err)
	}
	if len(objects) == 0 || len(objects) > limit {
		return nil, fmt.Errorf("nip01: %d filters, from 1 to %d are allowed", len(objects), limit)
	}
	filters := make([]Filter, len(objects))
	for i, o := range objects {
		if err := filters[i].UnmarshalJSON(o); err != nil {
			return nil, err
		}
	}
	return filters, nil
}

// AppendReq appends ["REQ",id,filter…].
func AppendReq(dst []byte, id string, filters []Filter) []byte {
	dst = AppendString(append(dst, `["REQ",`...), id)
	for i := range filters {
		dst = filters[i].AppendJSON(append(dst, ','))
	}
	return append(dst, ']')
}

// AppendClose appends ["CLOSE",id].
func AppendClose(dst []byte, id string) []byte {
	return append(AppendString(append(dst, `["CLOSE",`...), id), ']')
}

// AppendOK appends ["OK",id,accepted,text].
func AppendOK(dst []byte, id [32]byte, accepted bool, text string) []byte {
	dst = hex.AppendEncode(append(dst, `["OK","`...), id[:])
	dst = strconv.AppendBool(append(dst, `",`...), accepted)
	return append(AppendString(append(dst, ','), text), ']')
}

// AppendEOSE appends ["EOSE",token], the subscription id as it was written.
func AppendEOSE(dst, token []byte) []byte {
	return append(append(append(dst, `["EOSE",`...), token...), ']')
}

// AppendClosed appends ["CLOSED",token,text], the subscription id as it was
// written.
func AppendClosed(dst, token []byte, text string) []byte {
	dst = append(append(dst, `["CLOSED",`...), token...)
	return append(AppendString(append(dst, ','), text), ']')
}

// AppendCount appends ["COUNT",token,{"count":n}], the subscription id as it was
// written. (NIP-45)
func AppendCount(dst, token []byte, n int) []byte {
	dst = append(append(append(dst, `["COUNT",`...), token...), `,{"count":`...)
	return append(strconv.AppendInt(dst, int64(n), 10), "}]"...)
}

// AppendNotice appends ["NOTICE",text].
func AppendNotice(dst []byte, text string) []byte {
	return append(AppendString(append(dst, `["NOTICE",`...), text), ']')
}

// AppendAuth appends ["AUTH",challenge], the relay's half of NIP-42.
func AppendAuth(dst []byte, challenge string) []byte {
	return append(AppendString(append(dst, `["AUTH",`...), challenge), ']')
}
