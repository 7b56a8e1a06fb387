package wire

import (
	"errors"
	"fmt"
)

// Append appends the frame f holds. It is for tests and tools; a sender appends
// the frame it means.
func (f *Frame) Append(b []byte) []byte {
	switch f.Type {
	case FrameAck:
		return f.Ack.Append(b)
	case FrameOpen:
		return f.Open.Append(b)
	case FrameOpened:
		return f.Opened.Append(b)
	case FrameRefuse:
		return f.Refuse.Append(b)
	case FrameData, FrameDataFin:
		return f.Data.Append(b)
	case FrameMaxData:
		return f.MaxData.Append(b)
	case FrameReset:
		return f.Reset.Append(b)
	case FrameStop:
		return f.Stop.Append(b)
	case FrameDatagram:
		return f.Datagram.Append(b)
	case FrameClose:
		return f.Close.Append(b)
	case FrameGoAway:
		return AppendGoAway(b)
	}
	return AppendPing(b)
}

// Append appends the frame. Ranges must be as ParseFrame would accept them.
func (f *Ack) Append(b []byte) []byte {
	first := f.Ranges[0]
	b = append(b, byte(FrameAck))
	b = AppendVarint(b, first.Largest)
	b = AppendVarint(b, f.Delay)
	b = AppendVarint(b, uint64(len(f.Ranges)-1))
	b = AppendVarint(b, first.Largest-first.Smallest)
	below := first.Smallest
	for _, r := range f.Ranges[1:] {
		b = AppendVarint(b, below-r.Largest-2)
		b = AppendVarint(b, r.Largest-r.Smallest)
		below = r.Smallest
	}
	return b
}

// Append appends the frame.
func (f *Open) Append(b []byte) []byte {
	b = append(b, byte(FrameOpen))
	b = AppendVarint(b, f.ID)
	b = append(b, f.UUID[:]...)
	b = append(b, byte(f.Network))
	b = AppendVarint(b, f.Window)
	b = appendBytes(b, f.Destination)
	return appendBytes(b, f.Data)
}

// Len is how many bytes Append appends.
func (f *Open) Len() int {
	return 1 + VarintLen(f.ID) + 16 + 1 + VarintLen(f.Window) +
		VarintLen(uint64(len(f.Destination))) + len(f.Destination) +
		VarintLen(uint64(len(f.Data))) + len(f.Data)
}

// DataRoom is how many bytes of data the frame can hold, whatever it holds
// now, when it may take room bytes; negative when it does not fit without any.
func (f *Open) DataRoom(room int) int {
	bare := *f
	bare.Data = nil
	return payloadRoom(room - bare.Len() + 1)
}

// Append appends the frame.
func (f *Opened) Append(b []byte) []byte {
	b = AppendVarint(append(b, byte(FrameOpened)), f.ID)
	return AppendVarint(b, f.Window)
}

// Append appends the frame.
func (f *Refuse) Append(b []byte) []byte {
	b = AppendVarint(append(b, byte(FrameRefuse)), f.ID)
	b = AppendVarint(b, f.Received)
	b = AppendVarint(b, uint64(f.Code))
	return appendBytes(b, f.Text)
}

// Append appends the frame.
func (f *Data) Append(b []byte) []byte {
	return append(AppendDataHeader(b, f.ID, f.Offset, len(f.Data), f.Fin), f.Data...)
}

// AppendDataHeader appends a DATA frame up to its data, of which n bytes must
// follow.
func AppendDataHeader(b []byte, id, offset uint64, n int, fin bool) []byte {
	t := FrameData
	if fin {
		t = FrameDataFin
	}
	b = AppendVarint(append(b, byte(t)), id)
	b = AppendVarint(b, offset)
	return AppendVarint(b, uint64(n))
}

// DataRoom is how many bytes of data fit into a DATA frame of at most room
// bytes; negative when not even an empty frame fits.
func DataRoom(room int, id, offset uint64) int {
	return payloadRoom(room - 1 - VarintLen(id) - VarintLen(offset))
}

// DatagramRoom is the same for a DATAGRAM frame.
func DatagramRoom(room int, id uint64) int {
	return payloadRoom(room - 1 - VarintLen(id))
}

// payloadRoom is the longest payload that fits into room bytes together with
// its length.
func payloadRoom(room int) int {
	n := -1
	for _, l := range [...]struct{ size, limit int }{{1, 1<<6 - 1}, {2, 1<<14 - 1}, {4, 1<<30 - 1}} {
		n = max(n, min(room-l.size, l.limit))
	}
	return n
}

// Append appends the frame.
func (f *MaxData) Append(b []byte) []byte {
	b = AppendVarint(append(b, byte(FrameMaxData)), f.ID)
	return AppendVarint(b, f.Limit)
}

// Append appends the frame.
func (f *Reset) Append(b []byte) []byte {
	b = AppendVarint(append(b, byte(FrameReset)), f.ID)
	b = AppendVarint(b, f.Final)
	b = AppendVarint(b, uint64(f.Code))
	return appendBytes(b, f.Text)
}

// Append appends the frame.
func (f *Stop) Append(b []byte) []byte {
	b = AppendVarint(append(b, byte(FrameStop)), f.ID)
	return AppendVarint(b, uint64(f.Code))
}

// Append appends the frame.
func (f *Datagram) Append(b []byte) []byte {
	b = AppendVarint(append(b, byte(FrameDatagram)), f.ID)
	return appendBytes(b, f.Data)
}

// AppendPing appends a PING: a frame that only asks for an acknowledgement.
func AppendPing(b []byte) []byte { return append(b, byte(FramePing)) }

// AppendGoAway appends a GOAWAY, which says all by its type.
func AppendGoAway(b []byte) []byte { return append(b, byte(FrameGoAway)) }

// Append appends the frame.
func (f *Close) Append(b []byte) []byte {
	b = AppendVarint(append(b, byte(FrameClose)), uint64(f.Code))
	return appendBytes(b, f.Text)
}

var (
	errType    = errors.New("unknown type")
	errID      = errors.New("stream id 0")
	errNetwork = errors.New("unknown network")
	errRange   = errors.New("range out of bounds")
	errCode    = errors.New("code above 65535")
)

// ParseFrame reads the frame at the front of b into f and returns what follows
// it. Byte slices in f are borrowed from b. The error names the frame.
func ParseFrame(f *Frame, b []byte) (rest []byte, err error) {
	r := reader{b: b}
	f.Type = FrameType(r.byte())
	switch f.Type {
	case FrameAck:
		f.Ack.parse(&r)
	case FrameOpen:
		f.Open.parse(&r)
	case FrameOpened:
		f.Opened = Opened{ID: r.id(), Window: r.varint()}
	case FrameRefuse:
		f.Refuse = Refuse{ID: r.id(), Received: r.varint(), Code: r.code(), Text: r.bytes(MaxText)}
	case FrameData, FrameDataFin:
		f.Data.parse(&r, f.Type == FrameDataFin)
	case FrameMaxData:
		f.MaxData = MaxData{ID: r.varint(), Limit: r.varint()}
	case FrameReset:
		f.Reset = Reset{ID: r.id(), Final: r.varint(), Code: r.code(), Text: r.bytes(MaxText)}
	case FrameStop:
		f.Stop = Stop{ID: r.id(), Code: r.code()}
	case FrameDatagram:
		f.Datagram = Datagram{ID: r.id(), Data: r.bytes(MaxMessage)}
	case FramePing, FrameGoAway:
	case FrameClose:
		f.Close = Close{Code: r.code(), Text: r.bytes(MaxText)}
	default:
		r.fail(errType)
	}
	if r.err != nil {
		return nil, fmt.Errorf("wire: frame of type %#02x: %w", byte(f.Type), r.err)
	}
	return r.b, nil
}

func (r *reader) id() uint64 {
	id := r.varint()
	if id == 0 {
		r.fail(errID)
	}
	return id
}

func (r *reader) code() Code {
	c := r.varint()
	if c > 1<<16-1 {
		r.fail(errCode)
	}
	return Code(c)
}

func (f *Ack) parse(r *reader) {
	largest := r.varint()
	f.Delay = r.varint()
	more := r.varint()
	if more >= MaxAckRanges {
		r.fail(errTooLong)
	}
	f.Ranges = f.Ranges[:0]
	for r.err == nil {
		n := r.varint()
		if n > largest {
			r.fail(errRange)
		}
		if r.err != nil {
			return
		}
		f.Ranges = append(f.Ranges, AckRange{Smallest: largest - n, Largest: largest})
		if more == 0 {
			return
		}
		more--
		gap := r.varint()
		if gap+2 > largest-n {
			r.fail(errRange)
			return
		}
		largest -= n + gap + 2
	}
}

func (f *Open) parse(r *reader) {
	f.ID = r.id()
	if len(r.b) < len(f.UUID) {
		r.fail(errShort)
		return
	}
	r.b = r.b[copy(f.UUID[:], r.b):]
	f.Network = Network(r.byte())
	if f.Network < NetworkTCP || f.Network > NetworkPing {
		r.fail(errNetwork)
	}
	f.Window = r.varint()
	f.Destination = r.bytes(MaxDest)
	f.Data = r.bytes(MaxMessage)
}

func (f *Data) parse(r *reader, fin bool) {
	*f = Data{ID: r.id(), Offset: r.varint(), Fin: fin, Data: r.bytes(MaxMessage)}
	if f.Offset+uint64(len(f.Data)) > maxVarint {
		r.fail(errRange)
	}
}
