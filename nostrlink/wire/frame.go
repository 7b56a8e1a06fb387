package wire

import "fmt"

// FrameType is the first byte of a frame.
type FrameType byte

// The frames; the package comment draws them.
const (
	FrameAck      FrameType = 0x01
	FrameOpen     FrameType = 0x02
	FrameOpened   FrameType = 0x03
	FrameRefuse   FrameType = 0x04
	FrameData     FrameType = 0x05
	FrameDataFin  FrameType = 0x06
	FrameMaxData  FrameType = 0x07
	FrameReset    FrameType = 0x08
	FrameStop     FrameType = 0x09
	FrameDatagram FrameType = 0x0a
	FramePing     FrameType = 0x0b
	FrameClose    FrameType = 0x0c
	FrameGoAway   FrameType = 0x0d
)

// Network says what kind of destination a stream has.
type Network byte

// The networks an OPEN can ask for.
const (
	NetworkTCP Network = 1 // a byte stream to the destination
	NetworkUDP Network = 2 // datagrams to and from the destination
	NetworkDNS Network = 3 // a byte stream to the listener's own resolver; no destination
	// NetworkPing is a flow of ICMP echoes to and from the destination, a host
	// without a port. Each DATAGRAM is an echo's sequence (uint16, big endian)
	// and then its payload; a reply has the sequence of its request and the
	// payload that came back. The identifier is the ends' own business.
	NetworkPing Network = 4
)

// String gives the name that net.Dialer uses, "dns" or "ping".
func (n Network) String() string {
	switch n {
	case NetworkTCP:
		return "tcp"
	case NetworkUDP:
		return "udp"
	case NetworkDNS:
		return "dns"
	case NetworkPing:
		return "ping"
	}
	return fmt.Sprintf("network %d", byte(n))
}

// AckRange is a run of packet numbers, both ends included.
type AckRange struct{ Smallest, Largest uint64 }

// Ack says which packets have arrived.
type Ack struct {
	Delay  uint64     // µs since the packet with the largest number came
	Ranges []AckRange // 1 to MaxAckRanges, newest first, at least one number apart
}

// Open asks the listener to dial. It carries the stream's first bytes, so that
// a client that speaks first waits one round trip less.
type Open struct {
	ID          uint64
	UUID        [16]byte // the stream's NWS key
	Network     Network
	Window      uint64 // the dialer's initial credit for the listener's data
	Destination []byte // host:port, or a host with NetworkPing; at most MaxDest bytes; borrowed
	Data        []byte // the stream's bytes from offset 0, or one datagram; borrowed
}

// Opened says that the destination answered.
type Opened struct {
	ID     uint64
	Window uint64 // the listener's credit for the dialer's data
}

// Refuse answers an OPEN with no.
type Refuse struct {
	ID       uint64
	Received uint64 // how many of the stream's first bytes came, for the credit
	Code     Code
	Text     []byte // at most MaxText bytes; borrowed
}

// Data is a piece of a stream.
type Data struct {
	ID     uint64
	Offset uint64
	Fin    bool   // the stream's direction ends after Data
	Data   []byte // borrowed
}

// MaxData raises a credit; one that lowers it is ignored.
type MaxData struct {
	ID    uint64 // 0: all streams together
	Limit uint64
}

// Reset abandons a stream in both directions.
type Reset struct {
	ID    uint64
	Final uint64 // how many bytes of the stream its sender had sent, for the credit
	Code  Code
	Text  []byte // at most MaxText bytes; borrowed
}

// Stop asks the other end to send no more of a stream.
type Stop struct {
	ID   uint64
	Code Code
}

// Datagram is one datagram of a flow: never sent again, never acknowledged as such.
type Datagram struct {
	ID   uint64
	Data []byte // borrowed
}

// Close ends the session.
type Close struct {
	Code Code
	Text []byte // at most MaxText bytes; borrowed
}

// Frame holds one parsed frame: the field that Type names is set, the others
// are left as they were. It is meant to be used again and again.
type Frame struct {
	Type     FrameType
	Ack      Ack
	Open     Open
	Opened   Opened
	Refuse   Refuse
	Data     Data // also for FrameDataFin
	MaxData  MaxData
	Reset    Reset
	Stop     Stop
	Datagram Datagram
	Close    Close
}

// Stream is the id of the stream the frame speaks of; 0 when it speaks of none,
// or of all.
func (f *Frame) Stream() uint64 {
	switch f.Type {
	case FrameOpen:
		return f.Open.ID
	case FrameOpened:
		return f.Opened.ID
	case FrameRefuse:
		return f.Refuse.ID
	case FrameData, FrameDataFin:
		return f.Data.ID
	case FrameMaxData:
		return f.MaxData.ID
	case FrameReset:
		return f.Reset.ID
	case FrameStop:
		return f.Stop.ID
	case FrameDatagram:
		return f.Datagram.ID
	}
	return 0
}
