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
	o := &Observation{Settings: s, Time: time.Now(), Net: in, Ways: planQuestions(in, links)}
	for i := range o.Ways {
		a := &o.Ways[i]
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
	r := runner{uid: s.UID, stranger: o.stranger(), probes: probes}
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
	_, err := net.DefaultResolver.LookupHost(ctx, string(p.token)+".example")
	var dns *net.DNSError
	p.Answered = err == nil || errors.As(err, &dns) && dns.IsNotFound
}

// sendAll reports whether the thread is as it was.
func (r *runner) sendAll() bool {
	for i := range r.probes {
		p := &r.probes[i]
		if p.Kind == KindResolver {
			continue
		}
		if p.Mark != 0 {
			uid := int(r.uid) // the one that may
			if p.Kind == KindMark {
				uid = int(r.stranger)
			}
			if err := become(uid); err != nil {
				p.Untried = err.Error()
				continue
			}
		}
		r.sendOne(p)
		if p.Mark != 0 && become(os.Geteuid()) != nil {
			return false
		}
	}
	return true
}

// become makes this thread's sockets those of a user. It keeps the capabilities
// that probes need: this is a program that has them, and is not the tunnel.
func become(uid int) error {
	if _, err := unix.SetfsuidRetUid(uid); err != nil {
		return err
	}
	if now, _ := unix.SetfsuidRetUid(-1); now != uid {
		return errors.New("only root can act as another user")
	}
	return nil
}
