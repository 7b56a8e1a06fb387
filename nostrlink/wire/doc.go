// Package wire is the protocol as bytes: the JSON messages of NWS, the three
// messages this project adds to them (HELLO, WELCOME, REFUSED), the binary
// packets and frames of a session, and the codes with which either end says
// why something ended. It holds no state, does no I/O and knows neither keys
// nor time; every format is an Append/Parse pair, every length is bounded, and
// nothing a peer sends makes it panic.
//
// # Which of the two
//
// The plaintext of a kind 28333 event is a JSON message when its first byte is
// '{' and a session packet when its first byte is [Magic].
//
// # Packet
//
//	 0        1        2        3                 19        19+n
//	+--------+--------+--------+------ 16 --------+--- n ---+----------------+
//	| 0xD7   | 0x01   | flags  | session id       | number  | frames …       |
//	| magic  | version|0000000D|                  | varint  | to the end     |
//	+--------+--------+--------+------------------+---------+----------------+
//
// D is the direction: 0 from the end that dialed the session, 1 from the end
// that listened. The other flag bits are zero; a receiver refuses them. Every
// number below is a variable-length integer of RFC 9000, section 16 ("varint"),
// in its shortest form: a receiver refuses a longer one, so that a frame has
// exactly one encoding.
//
// # Frames
//
//	0x01 ACK       largest, delay (µs), count, first, count × (gap, length)
//	0x02 OPEN      stream id, uuid (16), network (1), window, len, destination, len, data
//	0x03 OPENED    stream id, window
//	0x04 REFUSE    stream id, received, code, len, text
//	0x05 DATA      stream id, offset, len, data
//	0x06 DATA+FIN  stream id, offset, len, data
//	0x07 MAX_DATA  stream id (0: the whole session), limit
//	0x08 RESET     stream id, final, code, len, text
//	0x09 STOP      stream id, code
//	0x0a DATAGRAM  stream id, len, data
//	0x0b PING
//	0x0c CLOSE     code, len, text
//	0x0d GOAWAY
//
// An ACK names ranges of packet numbers, newest first, as RFC 9000 section
// 19.3.1 does: the first range is largest-first … largest, each further one
// ends gap+2 below the smallest number before it and holds length+1 numbers.
// It has at most [MaxAckRanges] ranges in all, and a packet has at most one ACK.
//
// The dialer sends OPEN, with the stream's first bytes if it has any. Until
// OPENED or REFUSE answers, more may follow within the credit of a stream that
// WELCOME gave. An OPEN sent again may hold more or fewer of the first bytes. A
// REFUSE is the end of the stream at both ends; the dialer takes back the credit
// of the bytes that did not come. Afterwards each direction ends by DATA+FIN
// or by RESET; an end that gets a RESET and has not ended its own direction
// answers with a RESET. So each end always learns how many bytes the other has
// sent in all (final), and both agree on the credit that is left. STOP asks for
// an early end of the other direction, which DATA+FIN at the bytes sent so far
// then gives.
//
// The stream id is chosen by the dialer, counts up from 1 and is never used
// twice in a session; the uuid is the stream's NWS key. A datagram flow is a
// stream whose network is "udp" or "ping": it has OPEN, OPENED, DATAGRAM and
// RESET, and the data of its OPEN, if any, is its first datagram.
// GOAWAY, from the listener, asks the dialer to open new streams in another
// session; those that are open go on in this one.
//
// MAX_DATA, and the windows of OPEN and OPENED, are absolute: how many bytes of
// the stream (or of all streams together) the sender of the frame is ready to
// take since the beginning.
package wire
