package envelope

import "github.com/segmentio/asm/base64"

// eventOverhead is the JSON of a sealed event but for its content: created_at
// has ten digits until the year 2286.
const eventOverhead = 418

// ContentSize returns how long the content is of the event that Seal makes of
// n bytes.
func ContentSize(n int) int { return base64.StdEncoding.EncodedLen(payloadLen(n)) }

// EventSize returns how long the JSON is of the event that Seal makes of n
// bytes.
func EventSize(n int) int { return eventOverhead + ContentSize(n) }

// FullestWithin returns the largest plaintext, at most [MaxPlaintext], whose
// event has at most the given bytes of JSON and of content, and that fills its
// padding (NIP-44) to the last byte; or 0 if there is none.
func FullestWithin(event, content int) int {
	n := MaxPlaintext
	for n > 0 && (EventSize(n) > event || ContentSize(n) > content) {
		n = fullestBelow(n)
	}
	return n
}

// fullestBelow returns the longest plaintext below n that is not padded.
func fullestBelow(n int) int {
	for n--; n > 0 && paddedLen(n) != n; n-- {
	}
	return n
}
