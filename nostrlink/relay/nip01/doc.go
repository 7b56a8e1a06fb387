// Package nip01 is the text of the messages between a relay and its clients
// (NIP-01, with AUTH of NIP-42): the filters, and one parser for each
// direction. The client, the embedded relay and the hostile relay of the tests
// share it, so that all three mean the same by a message.
//
// The parsers find the parts of a message without decoding the event inside:
// what they return borrows from the message, and an event is handed on byte for
// byte as it came, checked to be one JSON object only by its first and last
// byte. Whoever reads the event parses it (see envelope.ParseEvent).
//
//	client → relay                       relay → client
//	["EVENT",<event>]                    ["EVENT",<subscription>,<event>]
//	["REQ",<subscription>,<filter>…]     ["OK",<event id>,<true|false>,<text>]
//	["CLOSE",<subscription>]             ["EOSE",<subscription>]
//	["AUTH",<event>]                     ["CLOSED",<subscription>,<text>]
//	                                     ["NOTICE",<text>]
//	                                     ["AUTH",<challenge>]
package nip01
