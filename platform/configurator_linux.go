package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// configurator holds the lock of a state directory, and knows what it has
// changed.
type configurator struct {
	// Who manages names, and why, as the log was told last; under mu.
	names string

	env   *env
	dir   string
	log   *slog.Logger
	trace func(change string) // nil for none
	boot  string
	ns    namespace

	mu         sync.Mutex
	lock       *os.File // nil when closed
	config     Config   // of the last Set
	held       *Config  // what Close leaves; nil for nothing
	applied    []change // what is in force, or may be
	onDisk     []change // what the journal lists: no less
	heldOnDisk *Config
	notes      []string
	failed     map[string]bool // what the last Set went without, by name
	needDNS    bool            // it may not go without name servers
}

// New takes the state directory, which keeps the journal and should outlive a
// restart of the machine. It checks that a tunnel is possible here at all. What
// a killed process has left in force stays in force until the first Set, which
// takes over what it wants and undoes the rest.
//
// It fails with a *LockedError while another process has the directory.
func New(stateDir string, o Options) (Configurator, error) {
	e := machineEnv()
	if err := checkMachine(e); err != nil {
		return nil, err
	}
	if err := openStateDir(stateDir); err != nil {
		return nil, err
	}
	c, err := open(stateDir, o.Log, e)
	if err != nil {
		return nil, err // not c: a nil pointer in an interface is not nil
	}
	c.trace = o.Trace
	return c, nil
}

// CleanUp undoes what the journal says a process that is gone has left. It does
// nothing when there is nothing to undo, so it may run at any time, any number
// of times. A machine that Config.Hold has left closed stays closed. It fails
// with a *LockedError while a process has the directory.
func CleanUp(stateDir string, log *slog.Logger) error {
	return cleanUp(stateDir, log, machineEnv(), false)
}

// Unlock is CleanUp that also opens a machine that Config.Hold has left closed.
func Unlock(stateDir string, log *slog.Logger) error {
	return cleanUp(stateDir, log, machineEnv(), true)
}

func cleanUp(stateDir string, log *slog.Logger, e *env, unlock bool) error {
	if nothing, err := nothingIn(stateDir); nothing || err != nil {
		return err
	}
	if !hasNetAdmin() {
		return errors.New("platform: repairing this machine's network needs CAP_NET_ADMIN: run as root")
	}
	if err := openStateDir(stateDir); err != nil {
		return err
	}
	c, err := open(stateDir, log, e)
	if err != nil {
		return err
	}
	if unlock {
		c.held = nil
	}
	return c.Close()
}

// nothingIn reports whether a state directory has nothing to undo and no process,
// which may not have changed anything yet.
func nothingIn(dir string) (bool, error) {
	without := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return errors.Is(err, fs.ErrNotExist)
	}
	if !without(journalName) {
		return false, nil
	}
	if without(lockName) {
		return true, nil
	}
	f, err := lock(dir)
	if errors.Is(err, fs.ErrPermission) {
		return true, nil // who may not lock it has no say here
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return without(journalName), nil // its process may have ended just now
}

// open locks the directory and reads the journal.
func open(dir string, log *slog.Logger, e *env) (*configurator, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &configurator{env: e, dir: dir, log: log}
	var err error
	if c.boot, err = bootID(); err != nil {
		return nil, err
	}
	if c.ns, err = threadNamespace(); err != nil {
		return nil, err
	}
	if c.lock, err = lock(dir); err != nil {
		return nil, err
	}
	if err := c.resume(); err != nil {
		c.lock.Close()
		return nil, err
	}
	return c, nil
}

// resume finds what an earlier process has left.
func (c *configurator) resume() error {
	j, err := readJournal(c.dir)
	if j == nil || err != nil {
		return err
	}
	c.onDisk = j.Changes
	if j.Boot == c.boot && j.Namespace.same(c.ns) {
		c.log.Info("found what an earlier tunnel left", "changes", len(j.Changes))
		c.applied = slices.DeleteFunc(slices.Clone(c.onDisk), isGone)
		c.held, c.heldOnDisk = j.Held, j.Held
		return nil
	}
	if j.Boot == c.boot && j.Namespace.Inode != c.ns.Inode && j.Namespace.exists() {
		return fmt.Errorf("platform: the journal in %s is about another network namespace, net:[%d], which still exists: run this there, or choose another state directory", c.dir, j.Namespace.Inode)
	}
	c.log.Info("found what a tunnel left before the machine was restarted, or in a namespace that is gone", "changes", len(j.Changes))
	lasting := slices.DeleteFunc(slices.Clone(c.onDisk), func(ch change) bool { return !outlivesBoot(ch) })
	left, err := c.undoAll(lasting)
	if err != nil {
		// It stays on the list, for the next Set or CleanUp: the tunnel can do
		// without names, and the machine must not be open for their sake.
		c.log.Warn("what an earlier tunnel left cannot be undone yet", "err", err)
	}
	return c.save(left)
}

// isGone reports whether a change has gone with its device.
func isGone(ch change) bool {
	switch ch := ch.(type) {
	case *linkChange:
		return !isDevice(ch.Index, ch.Device)
	case *addressChange:
		return !isDevice(ch.Index, ch.Device)
	case *routeChange:
		return ch.Device != "" && !isDevice(ch.Index, ch.Device)
	case *resolvedChange:
		return !isDevice(ch.Index, ch.Device)
	}
	return false
}

func (c *configurator) Set(cfg Config) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return errors.New("platform: set after close")
	}
	held := c.held
	c.held = cfg.closed()
	err := c.set(cfg)
	if err != nil {
		c.held = held
	}
	return err
}

// closed returns the state that c leaves behind, or nil.
func (c Config) closed() *Config {
	if !c.Hold {
		return nil
	}
	c.Device, c.MTU, c.Addresses, c.DNS = "", 0, nil, nil
	return &c
}

func (c *configurator) set(cfg Config) error {
	if cfg.isZero() {
		c.notes, c.config = nil, cfg
		c.linger()
		return c.reconcile(nil)
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	f, err := gather(c.env, cfg)
	if err != nil {
		return fmt.Errorf("platform: %w", err)
	}
	wanted, notes, err := plan(cfg, f, c.applied)
	if err != nil {
		return fmt.Errorf("platform: %w", err)
	}
	if manager, why := f.dnsManager(cfg, c.applied); manager+why != c.names {
		c.names = manager + why
		tell := c.log.Info
		if cfg.Device == "" { // there is no tunnel yet
			tell = c.log.Debug
		}
		tell("who is told of the tunnel's name servers", "manager", manager, "why", why)
	}
	told := c.notes
	c.notes, c.failed, c.needDNS = notes, make(map[string]bool), cfg.DNSNeeded
	if err := c.reconcile(wanted); err != nil {
		c.notes = told
		return err
	}
	c.config = cfg
	c.endLinger(cfg)
	for _, n := range c.notes {
		if !slices.Contains(told, n) {
			c.log.Warn("the tunnel is up, with a limit", "note", n)
		}
	}
	return nil
}

func (c *configurator) UplinkDNS() []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uplinkServers(c.env, c.applied)
}

func (c *configurator) DNSManager() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	manager, _ := managerOf(c.applied)
	return manager
}

func (c *configurator) Notes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.notes)
}

func (c *configurator) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return nil
	}
	var last Config
	if c.held != nil {
		last = *c.held
	}
	err := c.set(last)
	err = errors.Join(err, c.lock.Close())
	c.lock = nil
	return err
}
