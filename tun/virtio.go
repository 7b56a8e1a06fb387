package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// headerSize is the length of struct virtio_net_hdr, the header that precedes
// each packet on a TUN with IFF_VNET_HDR:
//
//	u8  flags         1: needs checksum, 2: checksum valid
//	u8  gso_type      0: none, 1: TCPv4, 4: TCPv6; 0x80: the sender speaks ECN
//	u16 hdr_len       IP and TCP headers
//	u16 gso_size      payload of each piece
//	u16 csum_start
//	u16 csum_offset
//
// Integers are in the machine's byte order. (Virtual I/O Device 1.2, 5.1.6)
const headerSize = 10

const (
	flagNeedsChecksum = 1
	flagChecksumValid = 2
	segmentECN        = 0x80
)

var errHeader = errors.New("tun: malformed virtio header")

// appendTo appends the header as the kernel reads it.
func (h Header) appendTo(b []byte) []byte {
	var flags byte
	if h.NeedsChecksum {
		flags |= flagNeedsChecksum
	}
	if h.ChecksumValid {
		flags |= flagChecksumValid
	}
	b = append(b, flags, byte(h.Segmentation))
	b = binary.NativeEndian.AppendUint16(b, h.HeaderLength)
	b = binary.NativeEndian.AppendUint16(b, h.SegmentSize)
	b = binary.NativeEndian.AppendUint16(b, h.ChecksumStart)
	return binary.NativeEndian.AppendUint16(b, h.ChecksumOffset)
}

// parseHeader reads what the kernel wrote. A kind of segmentation that was not
// asked for is an error: nobody here could handle such a packet.
func parseHeader(b []byte) (Header, error) {
	if len(b) < headerSize {
		return Header{}, errHeader
	}
	h := Header{
		Segmentation:   Segmentation(b[1] &^ segmentECN),
		HeaderLength:   binary.NativeEndian.Uint16(b[2:]),
		SegmentSize:    binary.NativeEndian.Uint16(b[4:]),
		NeedsChecksum:  b[0]&flagNeedsChecksum != 0,
		ChecksumStart:  binary.NativeEndian.Uint16(b[6:]),
		ChecksumOffset: binary.NativeEndian.Uint16(b[8:]),
		ChecksumValid:  b[0]&flagChecksumValid != 0,
	}
	switch h.Segmentation {
	case SegmentNone, SegmentTCPv4, SegmentTCPv6:
		return h, nil
	}
	return Header{}, fmt.Errorf("%w: segmentation %d", errHeader, h.Segmentation)
}
