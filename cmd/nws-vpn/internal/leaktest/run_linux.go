package leaktest

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/platform"
)

// How long a run waits for what its probes lead to: answers and connections,
// and names, which the kernel's resolver may ask for twice.
const (
	probeWait = 1500 * time.Millisecond
	nameWait  = 4 * time.Second
)

// Run observes the machine that in was read of. It takes about four seconds at
// most, and changes nothing.
func Run(ctx context.Context, s Settings, in *platform.Inspection) *Observation {
	links := uplinks(in, s.Device)
	o := &Observation{Settings: s, Time: time.Now(), Net: in, Self: uint32(os.Geteuid()), Ways: planQuestions(in, links)}
	o.As = o.tested()
	for i := range o.Ways {
		a := &o.Ways[i]
		if !a.Forwarded {
			a.User = &o.As
		}
		var err error
		if a.Way, err = platform.Ask(a.Question); err != nil {
			a.Problem = err.Error()
		}
	}
	var run [8]byte
	rand.Read(run[:])
	probes, control := planProbes(in, links, run, o.mark())
	w, err := newWatcher(links, newMatcher(probes))
	if err != nil {
		o.Watch.Problem = err.Error()
	}
	r := runner{self: o.Self, as: o.As, uid: s.UID, stranger: o.stranger(), probes: probes}
	r.send(ctx)
	if w != nil {
		if err := w.end(probes); err != nil {
			o.Watch.Problem = err.Error()
		}
	}
	o.Watch.Proved = make(map[string]bool)
	for _, i := range control {
		c := &probes[i]
		o.Watch.Proved[c.Device] = o.Watch.Proved[c.Device] || len(c.Seen) > 0
	}
	o.Probes = probes[len(control):]
	return o
}

// runner sends probes.
type runner struct {
	self, as uint32 // see Observation
	uid      uint32 // of the tunnel
	stranger uint32 // who is nobody to it
	probes   []Probe
	open     []opened
}

// opened is a probe's socket that something may still come to.
type opened struct {
	probe *Probe
	fd    int
}

// send sends all probes and waits for what comes of them.
func (r *runner) send(ctx context.Context) {
	var asking sync.WaitGroup
	ctx, cancel := context.WithTimeout(ctx, nameWait)
	defer cancel()
	done := make(chan struct{})
	for i := range r.probes {
		if p := &r.probes[i]; p.Kind == KindResolver {
			asking.Go(func() { r.lookUp(ctx, p) })
		}
	}
	go func() {
		defer close(done)
		// The thread's user is changed and changed back. It is not used by
		// others meanwhile, and ends if changing back fails.
		runtime.LockOSThread()
		if r.sendAll() {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	select {
	case <-time.After(probeWait):
	case <-ctx.Done():
	}
	for _, o := range r.open {
		o.finish()
	}
	asking.Wait()
}

// lookUp asks whatever resolves names on this machine.
func (r *runner) lookUp(ctx context.Context, p *Probe) {
	resolver, failed := net.DefaultResolver, make(chan error, 1)
	if r.as != r.self {
		resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return r.dial(ctx, network, address, failed)
		}}
	}
	_, err := resolver.LookupHost(ctx, string(p.token)+".example")
	var dns *net.DNSError
	p.Answered = err == nil || errors.As(err, &dns) && dns.IsNotFound
	select {
	case err := <-failed:
		p.Untried = err.Error()
	default:
	}
}

// dial makes a connection whose socket is that of the user to be tested. When
// there cannot be one, failed is told why, if it has room.
func (r *runner) dial(ctx context.Context, network, address string, failed chan<- error) (net.Conn, error) {
	runtime.LockOSThread()
	if err := become(r.as); err != nil {
		runtime.UnlockOSThread()
		select {
		case failed <- err:
		default:
		}
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if become(r.self) == nil {
		runtime.UnlockOSThread() // else the thread ends with this goroutine
	}
	return conn, err
}

// sendAll reports whether the thread is as it was.
func (r *runner) sendAll() bool {
	for i := range r.probes {
		p := &r.probes[i]
		if p.Kind == KindResolver {
			continue
		}
		uid := r.as
		switch {
		case p.Kind == KindMark:
			uid = r.stranger
		case p.Mark != 0:
			uid = r.uid // the one that may
		}
		if err := become(uid); err != nil {
			p.Untried = err.Error()
			continue
		}
		r.sendOne(p)
		if become(r.self) != nil {
			return false
		}
	}
	return true
}

// become makes this thread's sockets those of a user. It keeps the capabilities
// that probes need: this is a program that has them, and is not the tunnel.
func become(uid uint32) error {
	if _, err := unix.SetfsuidRetUid(int(uid)); err != nil {
		return err
	}
	if now, _ := unix.SetfsuidRetUid(-1); uint32(now) != uid {
		return errors.New("only root can act as another user")
	}
	return nil
}
