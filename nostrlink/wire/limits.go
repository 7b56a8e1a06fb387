package wire

// Bounds of packets and frames, in bytes unless they say otherwise. Both ends
// keep them: a longer field is neither written nor read.
const (
	Magic        = 0xD7 // the first byte of every packet; never '{'
	Version      = 1    // of packets and frames; what Hello.Versions offers
	MinMaxPacket = 1024 // every end takes packets of this size
	MaxDest      = 512  // a destination
	MaxText      = 256  // the text of an error
	MaxAckRanges = 32   // ranges of one ACK
)

// maxVarint is the largest number a varint holds.
const maxVarint = 1<<62 - 1
