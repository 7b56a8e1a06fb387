//go:build unix

package admission

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// hold takes the file's lock, as another process may.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	release, err := lock(path, time.Now())
	must(t, err)
	return release
}

// Nobody waits for those who wait for the file.
func TestJudgingWhileTheFileIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admission")
	synctest.Test(t, func(t *testing.T) {
		listed, banned, guest, stranger := newKey(t), newKey(t), newKey(t), newKey(t)
		rules := Rules{Mode: Listed, Listed: []envelope.PublicKey{listed, banned}}
		b := open(t, path, rules)
		must(t, b.Block(banned, time.Time{}, "spam", noon))
		for _, token := range []string{"token", "another"} {
			_, err := b.Invite(token, token, 1, time.Time{}, noon)
			must(t, err)
		}
		release := hold(t, path)
		begun, taken := time.Now(), make(chan error, 1)
		go func() { taken <- b.Admit(known(guest), "token", noon) }()
		synctest.Wait()
		select {
		case err := <-taken:
			t.Fatalf("an invitation is taken while the file is locked: %v", err)
		default:
		}
		admitted(t, "listed", b.Admit(known(listed), "", noon))
		admitted(t, "listed, with a token", b.Admit(known(listed), "another", noon))
		refused(t, "banned", b.Admit(known(banned), "", noon), "spam")
		refused(t, "banned, who stays", b.Check(known(banned), noon), "spam")
		refused(t, "with a token that is none", b.Admit(known(stranger), "none", noon), "does not know your invitation")
		b.SetRules(rules)
		if list, err := b.Bans(noon); len(list) != 1 || err != nil {
			t.Errorf("bans %+v, %v", list, err)
		}
		if list, err := b.Invites(noon); len(list) != 2 || err != nil {
			t.Errorf("invitations %+v, %v", list, err)
		}
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("they waited %v", waited)
		}
		release()
		admitted(t, "who has waited", <-taken)
		refused(t, "who comes later", b.Admit(known(stranger), "token", noon), "taken by another")

		// A lock that is not let go of is not waited for longer than it should be,
		// by however many.
		release = hold(t, path)
		begun = time.Now()
		refused(t, "with the file locked for good", b.Admit(known(stranger), "another", noon), "cannot note")
		if err := b.Unblock(banned, noon); err == nil {
			t.Error("a ban is ended while the file is locked")
		}
		if waited := time.Since(begun); waited > 2*lockTimeout+time.Second {
			t.Errorf("both waited %v", waited)
		}
		release()
		admitted(t, "once it is not locked", b.Admit(known(stranger), "another", noon))
	})
}

// Those who wait to take an invitation are not so many that nobody else gets in,
// and wait together.
func TestManyTakeAnInvitationWhileTheFileIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admission")
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Rules{Mode: Listed})
		_, err := b.Invite("token", "", MaxUses, time.Time{}, noon)
		must(t, err)
		release := hold(t, path)
		begun := time.Now()
		var busy atomic.Int32
		var all sync.WaitGroup
		for i := range 5 * maxTaking {
			key := newKey(t)
			all.Go(func() {
				err := b.Admit(known(key), "token", noon)
				refused(t, fmt.Sprint(i), err, "invitation")
				if told := new(wire.Error); errors.As(err, &told) && told.Code == wire.CodeBusy {
					busy.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := busy.Load(); n != 4*maxTaking {
			t.Errorf("%d are told to come again", n)
		}
		all.Wait()
		if waited := time.Since(begun); waited > lockTimeout+time.Second {
			t.Errorf("the rest waited %v", waited)
		}
		release()
		admitted(t, "afterwards", b.Admit(known(newKey(t)), "token", noon))
	})
}

// Whom an open exit admits anyway does not wait, and takes the invitation when he
// comes again.
func TestOpenExitWithTheFileLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admission")
	synctest.Test(t, func(t *testing.T) {
		guest := newKey(t)
		b := open(t, path, Rules{})
		_, err := b.Invite("token", "", 1, time.Time{}, noon)
		must(t, err)
		release := hold(t, path)
		begun := time.Now()
		admitted(t, "with a token", b.Admit(known(guest), "token", noon))
		if waited := time.Since(begun); waited > time.Second {
			t.Errorf("he waited %v", waited)
		}
		release()
		for _, holders := range []int{0, 1} {
			if list, err := b.Invites(noon); err != nil || len(list) != 1 || len(list[0].Holders) != holders {
				t.Errorf("invitations %+v, %v, want %d holders", list, err, holders)
			}
			admitted(t, "again", b.Admit(known(guest), "token", noon))
		}
	})
}
