package box

import (
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that users send to processes.
var passedOn = [...]os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}

// notified returns those that nobody has told this process to ignore.
func notified() (list []os.Signal) {
	for _, s := range passedOn {
		if !signal.Ignored(s) {
			list = append(list, s)
		}
	}
	return list
}

// forwarder hands signals to the command, or ends the box.
type forwarder struct {
	box      *Box
	terminal *terminal
	signals  chan os.Signal
	ended    chan struct{}
	done     sync.WaitGroup
	ends     atomic.Bool
}

// catchSignals keeps signals until start is called.
func (b *Box) catchSignals(t *terminal) *forwarder {
	f := &forwarder{box: b, terminal: t, signals: make(chan os.Signal, 16), ended: make(chan struct{})}
	if list := notified(); len(list) > 0 { // none would be all
		signal.Notify(f.signals, list...)
	}
	return f
}

func (f *forwarder) start() {
	f.done.Go(func() {
		for {
			select {
			case s := <-f.signals:
				f.take(s.(syscall.Signal))
			case <-f.ended:
				return
			}
		}
	})
}

// endOnSignal: the command is gone, so the next signal is for all others.
func (f *forwarder) endOnSignal() { f.ends.Store(true) }

func (f *forwarder) take(s syscall.Signal) {
	if f.ends.Load() && s != unix.SIGUSR1 && s != unix.SIGUSR2 {
		f.box.Close()
		return
	}
	// What is typed at the terminal reaches the command without us.
	if (s == unix.SIGINT || s == unix.SIGQUIT) && f.terminal.isOurs() {
		return
	}
	_ = f.box.pipe.send(order{Signal: int(s)}, nil) // if it fails, there is nobody left
}

// stop leaves the signals caught: one that comes late, since the terminal sent it
// to all of us or a user was impatient, must not end this process in the command's
// stead.
func (f *forwarder) stop() {
	close(f.ended)
	f.done.Wait()
}
