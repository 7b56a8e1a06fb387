package leaktest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/platform"
)

// watcher reads what leaves by the uplinks, and remembers which probes did.
type watcher struct {
	match   *matcher
	links   []watched
	stop    [2]int // a pipe: closing its writing end ends the reading
	reading sync.WaitGroup
	missed  atomic.Bool

	mu   sync.Mutex
	seen map[int][]string // devices by probe
}

type watched struct {
	name string
	fd   int
}

// snapLength is how much of a packet is looked at.
const snapLength = 2048

// newWatcher begins to watch. It needs CAP_NET_RAW.
func newWatcher(links []platform.LinkState, match *matcher) (*watcher, error) {
	w := &watcher{match: match, seen: make(map[int][]string)}
	if err := unix.Pipe2(w.stop[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	for _, l := range links {
		fd, err := packetSocket(l.Index)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("packets on %s cannot be read: %w", l.Name, err)
		}
		w.links = append(w.links, watched{l.Name, fd})
	}
	for _, l := range w.links {
		w.reading.Go(func() { w.read(l) })
	}
	return w, nil
}

func packetSocket(index int) (int, error) {
	// Protocol 0 until it is bound: else packets of all interfaces come first.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// For want of the capability it is as large as it may be.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (w *watcher) read(l watched) {
	buf := make([]byte, snapLength)
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(w.stop[0])}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			w.missed.Store(true)
			return
		}
		for w.next(l, buf) {
		}
		if fds[1].Revents != 0 {
			return // and all that came before has been read
		}
	}
}

// next reads one packet, if there is one.
func (w *watcher) next(l watched, buf []byte) bool {
	n, from, err := unix.Recvfrom(l.fd, buf, unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
		return true
	}
	if err != nil {
		return false
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok || link.Pkttype != unix.PACKET_OUTGOING {
		return true
	}
	var protocol [2]byte
	binary.NativeEndian.PutUint16(protocol[:], link.Protocol)
	if i := w.match.find(binary.BigEndian.Uint16(protocol[:]), buf[:n]); i >= 0 {
		w.mu.Lock()
		if len(w.seen[i]) == 0 || w.seen[i][len(w.seen[i])-1] != l.name {
			w.seen[i] = append(w.seen[i], l.name)
		}
		w.mu.Unlock()
	}
	return true
}

// end stops watching and writes into the probes what was seen. It fails when
// packets were missed: nobody knows what they were.
func (w *watcher) end(probes []Probe) error {
	unix.Close(w.stop[1])
	w.stop[1] = -1
	w.reading.Wait()
	var err error
	for _, l := range w.links {
		if s, serr := unix.GetsockoptTpacketStats(l.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); serr != nil || s.Drops > 0 {
			err = fmt.Errorf("too much passes %s to read all of it", l.name)
		}
	}
	if w.missed.Load() {
		err = errors.New("reading packets failed")
	}
	for i, names := range w.seen {
		probes[i].Seen = names
	}
	w.close()
	return err
}

func (w *watcher) close() {
	for _, l := range w.links {
		unix.Close(l.fd)
	}
	for _, fd := range w.stop {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
