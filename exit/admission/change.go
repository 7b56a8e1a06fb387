package admission

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	// lockTimeout bounds the wait for others who change the file.
	lockTimeout = 5 * time.Second
	// maxTaking bounds those who wait to take an invitation: fewer than may greet
	// the exit at the same time, so that others get in meanwhile.
	maxTaking = 16
)

// refresh reads the file anew if it has changed, and reports whether it has. The
// book is locked.
func (b *Book) refresh() (bool, error) {
	info, err := os.Stat(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = nil, nil
	}
	if err != nil {
		return false, fmt.Errorf("admission: %w", err)
	}
	if same(info, b.seen) {
		return false, nil
	}
	s, info, err := load(b.path)
	if err != nil {
		return false, err
	}
	b.state, b.seen = s, info
	tell(b.news)
	return true, nil
}

// take has a key take an invitation, if that is still possible.
func (b *Book) take(h hash, key envelope.PublicKey, now time.Time) (no error) {
	select {
	case b.taking <- struct{}{}:
		defer func() { <-b.taking }()
	default:
		return &wire.Error{Code: wire.CodeBusy, Text: "too many take an invitation of this exit now: try again later"}
	}
	err := b.change(b.patience(), now, func(s *state) error {
		if good, _ := s.holds(key, now); good {
			return nil // as another process has noted
		}
		if no = s.mayTake(h, now); no != nil {
			return no
		}
		s.take(h, key)
		return nil
	})
	if err != nil && no == nil { // the error is the operator's: it holds paths
		return &wire.Error{Code: wire.CodeInternal, Text: "this exit cannot note that you take its invitation: tell its operator"}
	}
	return no
}

// patience is how long somebody waits to take an invitation. Whom an open exit
// admits anyway may take it the next time.
func (b *Book) patience() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rules.Mode == Open {
		return 0
	}
	return lockTimeout
}

// change changes the file, after waiting for others who do for so long at most.
// The book must not be locked: until the file is changed it is as before.
func (b *Book) change(patience time.Duration, now time.Time, f func(s *state) error) error {
	deadline := time.Now().Add(patience)
	if err := b.startWriting(patience); err != nil {
		return err
	}
	defer func() { <-b.writing }()
	unlock, err := lock(b.path, deadline)
	if err != nil {
		return err
	}
	defer unlock()
	s, _, err := load(b.path)
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		return err
	}
	s.expire(now)
	info, err := store(b.path, s)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.seen = s, info // and nobody has changed it again, under the lock
	tell(b.news)
	return nil
}

// startWriting waits for the other changes of this process.
func (b *Book) startWriting(patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case b.writing <- struct{}{}:
		return nil
	default:
	}
	select {
	case b.writing <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("admission: %s is being changed: try again", b.path)
	}
}
