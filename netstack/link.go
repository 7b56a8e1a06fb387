package netstack

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/nws-vpn/nws-vpn/tun"
)

const (
	// headSize is what of a packet is always copied into a buffer of its own
	// size: all of the small ones, the headers of the large ones.
	headSize = 2 << 10
	// tailSize is a view of gVisor's largest pooled size.
	tailSize = 64 << 10
	// queueLength bounds the packets that wait for the device.
	queueLength = 512
)

// link is gVisor's end of the device: one goroutine reads packets and hands
// them to the stack, another writes what the stack sends. The stack's
// goroutines only queue packets, so that a connection handles its next
// acknowledgement while the kernel takes the last segment; a full queue blocks
// them, because a drop would look like congestion.
type link struct {
	dev      tun.Device
	log      *slog.Logger
	counters *counters
	toStack  stack.NetworkDispatcher
	serves   func(first []byte) (packet, bool) // parsePacket, but for tests

	// beforeSYN is called by the reader before the stack sees a packet that
	// opens a connection.
	beforeSYN func(packet)

	// verified says that the packet being delivered needs no check of its
	// sums. gVisor knows that only of a whole link, but asks for each packet.
	verified atomic.Bool

	queue  chan *stack.PacketBuffer
	idle   chan chan struct{} // asks the writer to say when the queue is empty
	ctx    context.Context    // ends with close
	cancel context.CancelFunc
	work   sync.WaitGroup
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

func newLink(dev tun.Device, log *slog.Logger, c *counters) *link {
	l := &link{dev: dev, log: log, counters: c, serves: parsePacket,
		queue: make(chan *stack.PacketBuffer, queueLength),
		idle:  make(chan chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// start begins moving packets. ended is called when the device can be read no
// more.
func (l *link) start(beforeSYN func(packet), ended func(error)) {
	l.beforeSYN = beforeSYN
	l.work.Go(func() { ended(l.receive()) })
	l.work.Go(l.transmit)
}

// flush waits until what is queued now has been written.
func (l *link) flush() {
	written := make(chan struct{})
	select {
	case l.idle <- written:
		<-written
	case <-l.ctx.Done():
	}
}

func (l *link) close() error {
	l.cancel()
	err := l.dev.Close()
	l.work.Wait()
	for len(l.queue) > 0 {
		(<-l.queue).DecRef()
	}
	return err
}

// receive reads packets until the device is closed.
func (l *link) receive() error {
	head := make([]byte, headSize)
	tail := buffer.NewViewSize(tailSize)
	for {
		n, h, err := l.dev.ReadPacket([][]byte{head, tail.AsSlice()})
		if errors.Is(err, tun.ErrTooShort) {
			l.counters.dropped.Add(1)
			continue
		}
		if err != nil {
			return err
		}
		// All further work is on copies; the head may be overwritten.
		first, rest := head[:min(n, headSize)], max(n-headSize, 0)
		payload := buffer.MakeWithData(first)
		switch {
		case rest > tailSize/2:
			tail.CapLength(rest)
			payload.Append(tail)
			tail = buffer.NewViewSize(tailSize)
		case rest > 0:
			// In a view of its own size: one byte must not hold 64 KiB.
			payload.Append(buffer.NewViewWithData(tail.AsSlice()[:rest]))
		}
		l.deliver(first, payload, h)
	}
}

// deliver hands a packet to the stack. first is a copy of its beginning.
func (l *link) deliver(first []byte, payload buffer.Buffer, h tun.Header) {
	p, ok := l.serves(first)
	if !ok {
		l.counters.dropped.Add(1)
		payload.Release()
		return
	}
	if p.opensTCP() {
		l.beforeSYN(p)
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: payload})
	l.verified.Store(h.NeedsChecksum || h.ChecksumValid)
	l.toStack.DeliverNetworkPacket(p.network, pkt)
	pkt.DecRef()
}

// WritePackets queues packets for the device.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, pkt := range pkts.AsSlice() {
		select {
		case l.queue <- pkt.IncRef():
			n++
		case <-l.ctx.Done():
			pkt.DecRef()
			return n, &tcpip.ErrClosedForSend{}
		}
	}
	return n, nil
}

// transmit writes packets until the link is closed.
func (l *link) transmit() {
	var w packetWriter
	for {
		select {
		case <-l.ctx.Done():
			return
		case pkt := <-l.queue:
			l.write(&w, pkt)
		case written := <-l.idle:
			for n := len(l.queue); n > 0; n-- {
				l.write(&w, <-l.queue)
			}
			close(written)
		}
	}
}

func (l *link) write(w *packetWriter, pkt *stack.PacketBuffer) {
	defer pkt.DecRef()
	err := w.write(l.dev, pkt)
	if err != nil && !errors.Is(err, os.ErrClosed) {
		l.counters.dropped.Add(1)
		l.log.Debug("netstack: packet not sent", "device", l.dev.Name(), "err", err)
	}
}

// MTU is the device's.
func (l *link) MTU() uint32 { return uint32(l.dev.MTU()) }

// SetMTU does nothing: the MTU is the device's.
func (l *link) SetMTU(uint32) {}

// GSOMaxSize is the largest packet the stack may send for the kernel to cut.
func (l *link) GSOMaxSize() uint32 { return tun.MaxPacket }

// SupportedGSO says whether the kernel cuts packets.
func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.dev.Offload() {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// Capabilities are those for the packet being delivered. None are about
// sending: what is left to the kernel there, each packet says.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	if l.verified.Load() {
		return stack.CapabilityRXChecksumOffload
	}
	return stack.CapabilityNone
}

// Attach takes where packets are to go.
func (l *link) Attach(d stack.NetworkDispatcher) { l.toStack = d }

// IsAttached reports whether Attach was called.
func (l *link) IsAttached() bool { return l.toStack != nil }

// Wait waits for the link's goroutines.
func (l *link) Wait() { l.work.Wait() }

// Close does nothing: Stack.Close closes the link before gVisor does.
func (l *link) Close() {}

// SetOnCloseAction does nothing.
func (l *link) SetOnCloseAction(func()) {}

// There is no link layer below IP.

func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
