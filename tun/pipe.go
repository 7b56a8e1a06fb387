package tun

import (
	"fmt"
	"os"
	"sync"
)

// pipeDepth is how many packets wait in a pipe before further ones are
// dropped: the kernel's default for a TUN.
const pipeDepth = 500

// Pipe returns two devices; what is written to one is read from the other.
// Both carry offloaded packets as they are. Like a kernel device, a pipe that
// nobody reads drops what does not fit its queue. Closing one end leaves the
// other open, and its writes go nowhere.
func Pipe(mtu int) (a, b Device) {
	ab, ba := make(chan pipePacket, pipeDepth), make(chan pipePacket, pipeDepth)
	return newPipeEnd("pipe0", mtu, ba, ab), newPipeEnd("pipe1", mtu, ab, ba)
}

type pipePacket struct {
	header Header
	data   []byte
}

type pipeEnd struct {
	name string
	mtu  int
	in   <-chan pipePacket
	out  chan<- pipePacket

	closing sync.Once
	closed  chan struct{}
}

func newPipeEnd(name string, mtu int, in <-chan pipePacket, out chan<- pipePacket) *pipeEnd {
	return &pipeEnd{name: name, mtu: mtu, in: in, out: out, closed: make(chan struct{})}
}

func (p *pipeEnd) Name() string  { return p.name }
func (p *pipeEnd) MTU() int      { return p.mtu }
func (p *pipeEnd) Offload() bool { return true }

func (p *pipeEnd) ReadPacket(bufs [][]byte) (int, Header, error) {
	select {
	case <-p.closed:
		return 0, Header{}, os.ErrClosed
	case packet := <-p.in:
		n, err := scatter(bufs, packet.data)
		return n, packet.header, err
	}
}

func (p *pipeEnd) WritePacket(h Header, bufs [][]byte) error {
	size := total(bufs)
	if size > MaxPacket || size > p.mtu && h.Segmentation == SegmentNone {
		return fmt.Errorf("tun: write to %s: packet of %d bytes is too long", p.name, size)
	}
	data := make([]byte, 0, size)
	for _, b := range bufs {
		data = append(data, b...)
	}
	select {
	case <-p.closed:
		return os.ErrClosed
	default:
	}
	select {
	case p.out <- pipePacket{h, data}:
	default: // full: the link drops it
	}
	return nil
}

func (p *pipeEnd) Close() error {
	p.closing.Do(func() { close(p.closed) })
	return nil
}
