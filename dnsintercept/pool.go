package dnsintercept

import (
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	defaultCapacity = 1 << 15
	defaultHold     = 24 * time.Hour
	// saveEvery is how stale the journal's time of last use may become.
	saveEvery = time.Hour
)

// errPoolFull: every address is in use, or was too recently.
var errPoolFull = errors.New("dnsintercept: no fake address is free: too many names were asked for within a day; restart with a new state directory, or wait")

// Entry says that the fake address at Slot stands for Host, and when it was
// last used.
type Entry struct {
	Host string
	Slot uint32
	Used time.Time
}

// Store keeps a pool's entries over restarts. Of two entries with one host or
// one slot the later one counts.
type Store interface {
	// Load returns what was saved, oldest first.
	Load() ([]Entry, error)
	// Save adds an entry and returns when it is safe from a crash. Not called
	// concurrently.
	Save(Entry) error
}

// PoolOptions are a pool's choices; the zero value is usable.
type PoolOptions struct {
	Range    Range
	Capacity int           // names known at a time; 32768 if zero, at most the range
	Hold     time.Duration // after its last use, until an address may change hands; 24 h if zero
	Store    Store         // nil forgets everything at the end of the process
	Log      *slog.Logger
}

// Pool gives every name that is asked for one fake IPv4 and one fake IPv6
// address, and knows the name again when an application connects to it.
//
// An address follows from a keyed hash of the name, so that the same key gives
// the same addresses after a restart (collisions are settled by the Store) and
// nobody without it can guess them. It is saved before anyone learns it, and
// goes to another name only when the pool is full, nothing is connected to it
// and nobody has used it for PoolOptions.Hold. All methods may be called
// concurrently.
type Pool struct {
	key   [32]byte
	rng   Range
	cap   int
	hold  time.Duration
	store Store
	log   *slog.Logger

	// assign serializes what is saved, so that a slow disk delays new names
	// only. It is taken before mu, which is never held during Save.
	assign sync.Mutex

	mu     sync.Mutex
	byHost map[string]*entry
	bySlot map[uint32]*entry
	idle   *list.List // of *entry without flows, least recently used first
}

type entry struct {
	host  string
	slot  uint32
	used  time.Time
	saved time.Time     // the last use that the store knows
	flows int           // connections under way
	elem  *list.Element // in idle, nil while flows > 0
}

// NewPool makes a pool with what opts.Store remembers. key should be random
// and the same as long as the Store is.
func NewPool(key [32]byte, opts PoolOptions) (*Pool, error) {
	rng, err := opts.Range.withDefaults()
	if err != nil {
		return nil, err
	}
	first, end := rng.slots()
	p := &Pool{
		key:    key,
		rng:    rng,
		cap:    opts.Capacity,
		hold:   opts.Hold,
		store:  opts.Store,
		log:    logger(opts.Log),
		byHost: make(map[string]*entry),
		bySlot: make(map[uint32]*entry),
		idle:   list.New(),
	}
	if p.cap <= 0 {
		p.cap = defaultCapacity
	}
	p.cap = min(p.cap, int(end-first))
	if p.hold <= 0 {
		p.hold = defaultHold
	}
	if p.store == nil {
		return p, nil
	}
	entries, err := p.store.Load()
	if err != nil {
		return nil, fmt.Errorf("dnsintercept: read the fake addresses of earlier runs: %w", err)
	}
	p.load(entries, time.Now())
	return p, nil
}

// load takes over entries, oldest first. What cannot be right is left out: a
// journal is input like any other.
func (p *Pool) load(entries []Entry, now time.Time) {
	first, end := p.rng.slots()
	known := newLedger()
	for _, s := range entries {
		if s.Slot >= first && s.Slot < end && fit(s.Host) {
			known.add(s)
		}
	}
	sorted := slices.SortedFunc(maps.Values(known.bySlot), func(a, b Entry) int {
		return a.Used.Compare(b.Used)
	})
	for _, s := range sorted[max(0, len(sorted)-p.cap):] {
		// The truth about the last use may be later by saveEvery.
		e := &entry{host: s.Host, slot: s.Slot, saved: s.Used, used: s.Used.Add(saveEvery)}
		if e.used.After(now) {
			e.used = now
		}
		p.insertLocked(e)
	}
}

// Address returns host's two addresses, which it gets at the first call. host
// is in lower case, without the dot of the root.
func (p *Pool) Address(host string) (v4, v6 netip.Addr, err error) {
	now := time.Now()
	p.mu.Lock()
	e := p.byHost[host]
	p.touchLocked(e, now)
	p.mu.Unlock()
	if e == nil {
		if e, err = p.add(host, now); err != nil {
			return netip.Addr{}, netip.Addr{}, err
		}
	}
	p.refresh(e, now)
	return p.rng.addr4(e.slot), p.rng.addr6(e.slot), nil
}

// Host returns the name that addr stands for. Asking is no use.
func (p *Pool) Host(addr netip.Addr) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.findLocked(addr); e != nil {
		return e.host, true
	}
	return "", false
}

// Contains reports whether addr lies in the pool's range, in use or not, the
// device's own part included.
func (p *Pool) Contains(addr netip.Addr) bool { return p.rng.contains(addr) }

// Range returns the prefixes in use.
func (p *Pool) Range() Range { return p.rng }

// Len returns how many names have an address.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byHost)
}

// Acquire returns the name that addr stands for and keeps it from changing
// until release is called, which may happen more than once.
func (p *Pool) Acquire(addr netip.Addr) (host string, release func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.findLocked(addr)
	if e == nil {
		return "", nil, false
	}
	e.flows++
	p.touchLocked(e, time.Now())
	return e.host, sync.OnceFunc(func() { p.release(e) }), true
}

func (p *Pool) release(e *entry) {
	now := time.Now()
	p.mu.Lock()
	e.flows--
	p.touchLocked(e, now)
	p.mu.Unlock()
	p.refresh(e, now)
}

// add gives host an address and saves it.
func (p *Pool) add(host string, now time.Time) (*entry, error) {
	p.assign.Lock()
	defer p.assign.Unlock()
	p.mu.Lock()
	if e := p.byHost[host]; e != nil { // somebody else was faster
		p.touchLocked(e, now)
		p.mu.Unlock()
		return e, nil
	}
	slot, err := p.freeLocked(host, now)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if p.store != nil {
		if err := p.store.Save(Entry{host, slot, now}); err != nil {
			return nil, fmt.Errorf("dnsintercept: save a fake address: %w", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := &entry{host: host, slot: slot, used: now, saved: now}
	p.insertLocked(e)
	return e, nil
}

// freeLocked finds a slot for host, taking the least recently used entry away
// when it has to and may.
func (p *Pool) freeLocked(host string, now time.Time) (uint32, error) {
	if len(p.bySlot) >= p.cap {
		oldest := p.idle.Front()
		if oldest == nil || now.Sub(oldest.Value.(*entry).used) < p.hold {
			return 0, errPoolFull
		}
		p.forgetLocked(oldest.Value.(*entry))
	}
	mac := hmac.New(sha256.New, p.key[:])
	mac.Write([]byte(host))
	first, end := p.rng.slots()
	n := end - first
	at := uint32(binary.BigEndian.Uint64(mac.Sum(nil)) % uint64(n))
	for p.bySlot[first+at] != nil { // the capacity is at most n, so one is free
		at = (at + 1) % n
	}
	return first + at, nil
}

// refresh saves e's last use when the store's idea of it has become stale.
func (p *Pool) refresh(e *entry, now time.Time) {
	if p.store == nil || !p.stale(e, now) {
		return
	}
	p.assign.Lock()
	defer p.assign.Unlock()
	if !p.stale(e, now) {
		return
	}
	if err := p.store.Save(Entry{e.host, e.slot, now}); err != nil {
		p.log.Warn("the last use of a fake address could not be saved", "error", err)
	}
	p.mu.Lock()
	e.saved = now // tried, at least: the next time is in an hour
	p.mu.Unlock()
}

// stale reports whether e is in force and was last saved too long ago. It
// stays so while assign is held.
func (p *Pool) stale(e *entry, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(e.saved) >= saveEvery && p.bySlot[e.slot] == e
}

func (p *Pool) findLocked(addr netip.Addr) *entry {
	slot, ok := p.rng.slot(addr)
	if !ok {
		return nil
	}
	return p.bySlot[slot]
}

// touchLocked notes a use of e, which may be nil, and keeps idle in order.
func (p *Pool) touchLocked(e *entry, now time.Time) {
	if e == nil {
		return
	}
	e.used = now
	switch {
	case e.flows > 0 && e.elem != nil:
		p.idle.Remove(e.elem)
		e.elem = nil
	case e.flows == 0 && e.elem == nil:
		e.elem = p.idle.PushBack(e)
	case e.flows == 0:
		p.idle.MoveToBack(e.elem)
	}
}

func (p *Pool) insertLocked(e *entry) {
	p.byHost[e.host] = e
	p.bySlot[e.slot] = e
	e.elem = p.idle.PushBack(e)
}

// forgetLocked takes an idle entry out.
func (p *Pool) forgetLocked(e *entry) {
	delete(p.byHost, e.host)
	delete(p.bySlot, e.slot)
	p.idle.Remove(e.elem)
}
