// Package reftest stands in for the reference implementation of NWS in tests: an
// [Entry] and an [Exit] that behave on the wire as captured traffic and
// measurements show it to, faults included:
//
//   - each event is worked on in a goroutine of its own, so that what comes close
//     together may change places, and data that overtakes its CONNECT is lost;
//   - a reader polls every 100 ms and drops what does not fit its buffer, which
//     has 32 KiB;
//   - an entry subscribes with its first write, and each of its streams dies
//     after 10 seconds;
//   - an exit takes SOCKS5RESPONSE for data, not DATA, and nothing without a
//     destination;
//   - nobody says that a stream has ended.
//
// It shares no code with what it tests but the envelope and the message format.
package reftest
