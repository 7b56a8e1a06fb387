package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/dnsintercept"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/platform"
)

// supervisor is `nws-vpn up` at work: it tells the state machine what happens,
// puts this machine into the state that follows, and does the tasks. All of that
// is done by one goroutine, run; others send it events.
type supervisor struct {
	cfg      *config.Config
	dirs     stateDirs
	log      *slog.Logger
	wayLog   *slog.Logger   // of what reaches the exit
	wayTell  func(all bool) // see holdBack
	out      io.Writer
	platform platform.Configurator
	manager  *service.Manager
	hangups  <-chan os.Signal
	persist  bool // a first attempt that fails is no end
	exit     name.Name
	relays   []string       // the user's own
	embedded *embeddedRelay // or nil
	relayKey envelope.SecretKey
	book     name.Book
	started  time.Time
	found    bool      // the machine was closed already, by an earlier process
	rollback *rollback // nil unless asked for

	ctx    context.Context // of everything that run starts; ends before the machine is put back
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	events chan event
	unlock atomic.Bool   // the end was asked for, and with it the machine open
	wake   chan struct{} // ends the pause before another attempt to connect

	// Of run's goroutine.
	machine     *lifecycle.Machine
	policy      platform.Config // that was set last
	inForce     bool            // and is, as far as we know
	keeping     context.CancelFunc
	kept        sync.WaitGroup
	fakes       dnsintercept.Range
	pool        *dnsintercept.Pool
	sites       netstack.Dialer
	opened      time.Time     // when the device was last opened
	attempts    int           // to connect
	dialing     bool          // the last attempt has not ended yet
	pause       time.Duration // before the next retry in Blocked
	greeted     bool          // "connected" was printed
	credentials credentialsFunc

	ready  *readiness
	reload bool // this process is to be replaced by a new one
	over   bool
	why    error     // why it ends, nil when it was asked to
	left   string    // how the machine is after that, for the user
	leaves string    // and for programs; see control.Handler
	socket io.Closer // where others ask, or nil

	mu       sync.Mutex
	tunnel   *tunnel // nil until the exit is first reached
	view     view
	repaired repairs
}

// newSupervisor takes the machine for this process; nothing is changed yet. It
// must run, or be abandoned.
func newSupervisor(cfg *config.Config, dirs stateDirs, o upOptions, out io.Writer, log *slog.Logger) (*supervisor, error) {
	s := &supervisor{
		cfg: cfg, dirs: dirs, log: log, out: out, credentials: o.credentials,
		manager: service.Current(), persist: o.retry || isRestarted(), ready: o.ready, hangups: o.hangups,
		events: make(chan event, 16), wake: make(chan struct{}, 1),
		started: time.Now(),
	}
	s.wayLog, s.wayTell = holdBack(log)
	s.wayTell(s.persist) // who waits for the exit hears why
	s.ctx, s.stop = context.WithCancel(context.Background())
	var err error
	if s.book, err = name.NewBook(cfg.Names); err != nil {
		return nil, err
	}
	s.exit, s.relays, err = chooseExit(cfg.Up.Exit, cfg.Up.Relays, s.book)
	if err != nil && !(errors.Is(err, errNoRelay) && cfg.Up.RelayListen != "") {
		return nil, err
	}
	if s.relayKey, err = relayKey(&cfg.Up); err != nil {
		return nil, err
	}
	if s.platform, err = openPlatform(dirs, o.trace, log); err != nil {
		return nil, err
	}
	killSwitch := lifecycle.KillSwitch(cfg.Up.KillSwitch)
	var left record
	left, s.found = dirs.recall()
	if err := s.openRelay(); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	if s.found && left.KillSwitch == lifecycle.Lockdown {
		killSwitch = lifecycle.Lockdown
	}
	s.fakes = freeRange(&cfg.Up, log)
	s.machine, err = newMachine(killSwitch, &cfg.Up, s.fakes, lifecycle.Options{Closed: s.found, Persist: s.persist})
	if err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	if err := dirs.remember(record{KillSwitch: killSwitch}); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	if o.rollback > 0 {
		if s.rollback, err = guardRollback(dirs, o.rollback, s.found); err != nil {
			return nil, errors.Join(err, s.abandon())
		}
	}
	if isRestarted() && !s.found {
		if err := s.abandon(); err != nil {
			return nil, err
		}
		return nil, errEndedMeanwhile
	}
	return s, nil
}

// openPlatform takes the machine for this process. One that begins anew waits for a
// command that has taken it for a moment.
func openPlatform(dirs stateDirs, trace bool, log *slog.Logger) (p platform.Configurator, err error) {
	options := platform.Options{Log: log}
	if trace {
		options.Trace = func(change string) { fmt.Fprintln(os.Stderr, "+", change) }
	}
	take := func() error {
		p, err = platform.New(dirs.lasting(), options)
		return err
	}
	if !isRestarted() {
		err = take()
		return p, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), downTimeout)
	defer cancel()
	err = whenUnlocked(ctx, take)
	return p, err
}

// abandon lets the machine go, which is as it was found: run did not.
func (s *supervisor) abandon() error {
	s.closeRelay()
	if s.rollback != nil && !(isRestarted() && s.found) { // else what it is for is in force
		_ = s.rollback.dismiss()
	}
	if s.found {
		return nil // as after a kill: the lock ends with the process, the rest stays
	}
	return errors.Join(s.dirs.forget(), s.platform.Close())
}

// event is news for run.
type event struct {
	what   lifecycle.Event
	err    error
	tunnel *tunnel         // with the first ExitReached
	stack  *netstack.Stack // with DeviceGone: whose device
	// taken, if any, gets one word when the machine is in the state that follows,
	// or could not be put into it. It has room for that.
	taken chan<- error
}

// Pauses before something that failed is tried again, and how often the link is
// looked at.
const (
	minPause  = time.Second
	maxPause  = 30 * time.Second
	linkCheck = 200 * time.Millisecond
)

// run is the life of the tunnel, until ctx ends, down is asked for or the first
// attempt fails. Then the machine is as it was, or closed as the kill switch
// says.
func (s *supervisor) run(ctx context.Context) error {
	defer s.stop()
	s.tasks.Go(func() { roam(s.ctx, s.log, s.redial) })
	s.tasks.Go(s.watchPortal)
	retry := time.NewTimer(0)
	<-retry.C
	alive := s.manager.Heartbeat()
	defer alive.Stop()
	ended := ctx.Done()
	s.take(event{what: lifecycle.UpRequested})
	for armed := false; !s.over; {
		if blocked := s.machine.State() == lifecycle.Blocked; !blocked {
			armed, s.pause = false, 0
			retry.Stop()
		} else if !armed {
			armed = true
			retry.Reset(s.longerPause())
		}
		select {
		case e := <-s.events:
			s.take(e)
		case <-retry.C:
			armed = false
			s.take(event{what: lifecycle.Retry})
		case <-ended:
			s.log.Info("going down")
			s.take(event{what: lifecycle.DownRequested})
		case <-s.hangups:
			s.hangUp()
		case <-alive.C:
			s.manager.Notify("WATCHDOG=1")
		}
	}
	return s.why
}

// longerPause is how long to wait before what failed is tried again: twice as long
// as the last time.
func (s *supervisor) longerPause() time.Duration {
	s.pause = min(max(2*s.pause, minPause), maxPause)
	return s.pause
}

// tell gives news to run.
func (s *supervisor) tell(e event) {
	select {
	case s.events <- e:
	case <-s.ctx.Done():
		if e.tunnel != nil {
			e.tunnel.lower()
		}
	}
}
