package relayd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// disk is the copy of the store on disk: a bbolt file in which each event's JSON
// lies under its place among all arrivals. Changes are committed in groups: all
// that came while the last group was on its way to the disk leave together. A
// group that fails stays and is tried again; until it succeeds those who wait
// for it are told.
type disk struct {
	db  *bbolt.DB
	log *slog.Logger

	wake chan struct{} // takes one
	stop chan struct{}
	done chan struct{}

	mu        sync.Mutex
	pending   []change // oldest first; the newest has the ticket written
	bytes     int      // of pending
	written   uint64   // tickets given
	committed uint64   // up to this ticket
	failed    uint64   // up to this ticket the last attempt was, which failed with err
	err       error
	attempt   chan struct{} // closed at the end of each
}

// change is an event to put at a place, or nil to delete what is there.
type change struct {
	place uint64
	raw   []byte
}

const (
	eventsBucket = "events"
	metaBucket   = "meta"
	formatKey    = "format"
	format       = "1"
	// maxPending and maxPendingBytes bound the changes that wait for a disk that
	// does not take them, or takes them more slowly than they come.
	maxPending      = 8192
	maxPendingBytes = 64 << 20
	// retryAfter is the pause after a commit that failed.
	retryAfter = time.Second
	// openTimeout is how long another process may hold the file.
	openTimeout = time.Second
)

// openDisk opens or makes the file. Close releases it.
func openDisk(path string, log *slog.Logger) (*disk, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: openTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("database: %s is in use by another relay: give this one a file of its own", path)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(eventsBucket)); err != nil {
			return err
		}
		meta, err := tx.CreateBucketIfNotExists([]byte(metaBucket))
		if err != nil {
			return err
		}
		switch have := string(meta.Get([]byte(formatKey))); have {
		case format:
			return nil
		case "":
			return meta.Put([]byte(formatKey), []byte(format))
		default:
			return fmt.Errorf("is of format %q, which this version does not know: move it away or use a newer nws-vpn", have)
		}
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("database: %s: %w", path, err)
	}
	d := &disk{
		db: db, log: log,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		attempt: make(chan struct{}),
	}
	go d.run()
	return d, nil
}

// openError says what is the matter with a file that cannot be opened.
func openError(path string, err error) error {
	var there *fs.PathError // which names the file itself
	switch {
	case errors.As(err, &there):
		return fmt.Errorf("database: %w", err)
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrChecksum), errors.Is(err, bbolterrors.ErrVersionMismatch):
		return fmt.Errorf("database: %s is no file of a relay, or is damaged: name another one, or move it away to begin with an empty one: %w", path, err)
	}
	return fmt.Errorf("database: %s: %w", path, err)
}

// load calls each for every event in the order of arrival, with a copy of its
// JSON. It must be called before the first write.
func (d *disk) load(each func(place uint64, raw []byte)) error {
	return d.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(eventsBucket)).ForEach(func(key, value []byte) error {
			if len(key) == 8 {
				each(binary.BigEndian.Uint64(key), append([]byte(nil), value...))
			}
			return nil
		})
	})
}

// full reports whether the disk has not taken much of what was written.
func (d *disk) full() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending) >= maxPending || d.bytes >= maxPendingBytes
}

// write queues changes, which reach the disk together or not at all, and
// returns their ticket.
func (d *disk) write(changes []change) uint64 {
	d.mu.Lock()
	d.pending = append(d.pending, changes...)
	d.bytes += rawBytes(changes)
	d.written++
	ticket := d.written
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return ticket
}

func rawBytes(changes []change) (n int) {
	for _, c := range changes {
		n += len(c.raw)
	}
	return n
}

// wait returns nil once the changes with that ticket are safe on disk, or why the
// attempt to bring it there failed.
func (d *disk) wait(ticket uint64) error {
	for {
		d.mu.Lock()
		committed, failed, err, attempt := d.committed, d.failed, d.err, d.attempt
		d.mu.Unlock()
		switch {
		case committed >= ticket:
			return nil
		case failed >= ticket:
			return err
		}
		select {
		case <-attempt:
		case <-d.done:
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.committed >= ticket {
				return nil
			}
			return errDiskClosed
		}
	}
}

var errDiskClosed = errors.New("relayd: the store has been closed")

func (d *disk) run() {
	defer close(d.done)
	for {
		select {
		case <-d.wake:
		case <-d.stop:
			for d.commit() == nil && d.waiting() {
			}
			return
		}
		for d.waiting() {
			if d.commit() == nil {
				continue
			}
			select {
			case <-time.After(retryAfter):
			case <-d.stop:
				d.commit()
				return
			}
		}
	}
}

func (d *disk) waiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending) > 0
}

// commit brings to the disk what waits.
func (d *disk) commit() error {
	d.mu.Lock()
	group, last := d.pending, d.written
	d.mu.Unlock()
	if len(group) == 0 {
		return nil
	}
	err := d.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(eventsBucket))
		for _, c := range group {
			key := binary.BigEndian.AppendUint64(nil, c.place)
			var err error
			if c.raw == nil {
				err = b.Delete(key)
			} else {
				err = b.Put(key, c.raw)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.failed, d.err = d.written, err // what came meanwhile need not wait for the next attempt
		d.log.Error("cannot write the events that are kept", "err", err, "waiting", len(d.pending))
	} else {
		d.committed = last
		d.bytes -= rawBytes(group)
		d.pending = append([]change(nil), d.pending[len(group):]...)
	}
	close(d.attempt)
	d.attempt = make(chan struct{})
	return err
}

// close brings to the disk what it still takes, and releases the file.
func (d *disk) close() error {
	close(d.stop)
	<-d.done
	return d.db.Close()
}

// load fills an empty store with what is on disk, and keeps it there from then
// on. What has expired, cannot be read or is of a kind that is not kept any more
// is deleted.
func (s *store) load(d *disk, keep Kinds, now time.Time, log *slog.Logger) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unwanted []uint64
	broken := 0
	err := d.load(func(place uint64, raw []byte) {
		n, err := newStored(raw)
		if err == nil {
			err = n.event.CheckID()
		}
		if err != nil {
			broken++
		}
		if err != nil || !keep.Has(n.event.Kind) || n.expired(now) || s.superseded(n) {
			unwanted = append(unwanted, place)
			return
		}
		n.place = place
		s.add(n)
	})
	if err != nil {
		return err
	}
	if broken > 0 {
		log.Warn("events on disk cannot be read and are deleted", "events", broken)
	}
	s.disk = d
	for _, place := range unwanted {
		s.next = max(s.next, place+1)
		s.note(change{place: place})
	}
	s.shrink(now)
	s.flush()
	return nil
}

// superseded reports whether the store has the event or a newer one of its
// address, which no file that we wrote says.
func (s *store) superseded(n *stored) bool {
	_, hasAddress := addressOf(&n.event)
	return s.byID[n.event.ID] != nil || hasAddress && s.byAddress[n.address] != nil
}
