// Package compat speaks NWS as it is written, without our session: what the
// reference implementation and its like understand. An [Entry] dials through an
// exit that knows no session, an [Exit] serves entries that know none.
//
// # The protocol
//
// A stream is a UUID. Each event of kind 28333 holds one message (wire.Message,
// JSON):
//
//	CONNECT         entry to exit: dial destination
//	CONNECTR        the same, but the exit is to dial the entry back and the
//	                stream is that TCP connection, in the clear
//	DATA            bytes of the stream, either way
//	SOCKS5RESPONSE  what the reference sends where the text says DATA
//
// There is nothing else: no answer to CONNECT, no number, no acknowledgement, no
// end of a stream and no refusal. What follows from that cannot be mended here,
// only bounded:
//
//   - An event that a relay loses leaves a hole that nobody notices.
//   - Order is kept as far as it can be by one who sends: a stream's next event
//     leaves when the relay has confirmed the one before, and a while after that,
//     since many relays deliver in batches that they sort, and the reference
//     reads each event in a thread of its own. See [Options].
//   - A destination that refuses looks like one that is slow: [Entry.DialContext]
//     returns when the relay has taken the request, and a stream that nothing
//     was ever heard of fails with a timeout.
//   - The end of a direction cannot be told. Conn.CloseWrite only ends writing
//     here, and shortens the wait for what still comes. A stream whose other end
//     has finished ends with a timeout error, never with io.EOF, since a
//     transfer that was cut short would look the same.
//   - There is no flow control: what comes faster than it is read, beyond a bound,
//     ends its stream.
//
// # No I/O
//
// Events are the caller's: it opens what arrives ([Keys] helps) and hands it to
// Receive, in the order of arrival, and it implements [Sender]. Only CONNECTR
// has connections of its own: see [ReverseListener] and ExitOptions.DialBack.
package compat
