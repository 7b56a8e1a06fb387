// Package netstack turns the packets of a device into flows: TCP connections
// and UDP conversations that this machine's programs open to anywhere.
//
// A flow is answered once, and only after its handler has found out what the
// answer is: the handler of a TCP connection is called at the SYN, before the
// program's connect() has returned, and either accepts it, which completes the
// handshake, or rejects it with an error, which the program then gets from
// connect(). Forward is the handler that dials the flow's destination by some
// Dialer and joins the two.
//
// TCP is gVisor's, over IPv4 and IPv6, and this is the only package that knows
// it. Packets enter and leave whole, up to 64 KiB, when the device can do that.
// Everything that a program can make grow is bounded: handshakes, flows,
// datagrams that wait. A flow that is idle holds no copy buffer, and one that
// has ended leaves nothing behind.
//
// Of ICMP, echo requests are served: they are flows too, because an echo
// answered here would claim that a host is there which nobody asked. Other
// messages from the device are dropped; those to it say why a flow was
// rejected, or that its datagrams are too large.
package netstack
