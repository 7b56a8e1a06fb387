// Package ws is the websocket between a client and a relay, for both ends.
//
// coder/websocket does the handshake, the reading and the answers to control
// frames. Writing is done here, for three reasons: a reader must never be stuck
// behind a write (the two ends would wait for each other); one message that
// goes to many subscribers must not be copied for each; and messages that wait
// together should leave in one system call. So each connection has one writer
// goroutine and a queue bounded in bytes, and what coder/websocket wants to
// write (pongs, close frames) goes through that queue as well, ahead of the
// messages.
//
// Compression (permessage-deflate) is never negotiated: events are encrypted
// and encoded, it would cost more than all other work together.
package ws
