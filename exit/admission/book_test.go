package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) envelope.PublicKey {
	t.Helper()
	return envelopetest.NewKey(t).Public()
}

func known(key envelope.PublicKey) nostrlink.Client {
	return nostrlink.Client{Key: key, Proven: true}
}

func open(t testing.TB, path string, rules Rules) *Book {
	t.Helper()
	b, err := OpenBook(path, rules)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused wants a refusal that says some words.
func refused(t *testing.T, what string, err error, words string) {
	t.Helper()
	var told *wire.Error
	if !errors.As(err, &told) || !strings.Contains(told.Text, words) || len(told.Text) > wire.MaxText {
		t.Errorf("%s: %v, want a refusal with %q", what, err, words)
	}
}

func admitted(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestModes(t *testing.T) {
	listed, author, followed, stranger := newKey(t), newKey(t), newKey(t), newKey(t)
	for _, test := range []struct {
		mode Mode
		who  nostrlink.Client
		want string // part of the refusal; empty: admitted
	}{
		{Open, known(stranger), ""},
		{Open, nostrlink.Client{Key: stranger}, ""},
		{Listed, known(listed), ""},
		{Listed, known(stranger), "does not admit npub1"},
		{Listed, known(author), "does not admit npub1"},
		{Listed, known(followed), "does not admit npub1"},
		{Listed, nostrlink.Client{Key: listed}, "serves only those it knows"}, // claims a key
		{Trust, known(listed), ""},
		{Trust, known(author), ""},
		{Trust, known(followed), ""},
		{Trust, known(stranger), "does not admit npub1"},
		{Trust, nostrlink.Client{Key: followed}, "serves only those it knows"},
	} {
		b := open(t, filepath.Join(t.TempDir(), "admission"), Rules{test.mode, []envelope.PublicKey{listed}, []envelope.PublicKey{author}})
		if test.mode == Trust {
			b.SetFollows([]announce.Follows{{Key: author, Created: noon, Keys: []envelope.PublicKey{followed}}})
		}
		err := b.Admit(test.who, "", noon)
		if test.want == "" {
			admitted(t, fmt.Sprint(test), err)
		} else {
			refused(t, fmt.Sprint(test), err, test.want)
		}
		if again := b.Check(test.who, noon); (again == nil) != (err == nil) {
			t.Errorf("%v is judged differently later: %v", test, again)
		}
	}
}

func TestBans(t *testing.T) {
	mallory, path := newKey(t), filepath.Join(t.TempDir(), "admission")
	b := open(t, path, Rules{})
	must(t, b.Block(mallory, noon.Add(time.Hour), "sends spam", noon))
	refused(t, "banned", b.Admit(known(mallory), "", noon), "until 2026-03-01 13:00 UTC: sends spam")
	refused(t, "banned, with a token", b.Admit(known(mallory), "token", noon), "banned")
	admitted(t, "the same key, not proven", b.Admit(nostrlink.Client{Key: mallory}, "", noon))
	admitted(t, "when it is over", b.Admit(known(mallory), "", noon.Add(time.Hour)))
	// Another process sees it, and its changes are seen here.
	other := open(t, path, Rules{Mode: Listed, Listed: []envelope.PublicKey{mallory}})
	refused(t, "listed and banned", other.Admit(known(mallory), "", noon), "banned")
	must(t, other.Unblock(mallory, noon))
	admitted(t, "after another process has ended the ban", b.Admit(known(mallory), "", noon))
	if err := b.Unblock(mallory, noon); err == nil {
		t.Error("a ban that is none is ended")
	}
	must(t, other.Block(mallory, time.Time{}, "", noon))
	refused(t, "for ever", b.Admit(known(mallory), "", noon.AddDate(10, 0, 0)), "banned from this exit")
	if list, err := b.Bans(noon); err != nil || len(list) != 1 || list[0].Key != mallory {
		t.Errorf("bans %+v, %v", list, err)
	}
	for _, reason := range []string{"a\nb", "\x1b[2J", strings.Repeat("x", MaxNote+1), "\xff"} {
		if err := b.Block(mallory, time.Time{}, reason, noon); err == nil {
			t.Errorf("the reason %q is taken", reason)
		}
	}
}

func TestInvitations(t *testing.T) {
	alice, bob, path := newKey(t), newKey(t), filepath.Join(t.TempDir(), "admission")
	b := open(t, path, Rules{Mode: Listed})
	one, err := b.Invite("token for one", "for alice", 1, noon.Add(time.Hour), noon)
	must(t, err)
	refused(t, "without an identity", b.Admit(nostrlink.Client{Key: alice}, "token for one", noon), "with an identity only")
	refused(t, "an unknown token", b.Admit(known(alice), "another token", noon), "does not know your invitation")
	admitted(t, "alice", b.Admit(known(alice), "token for one", noon))
	admitted(t, "alice, with the token again", b.Admit(known(alice), "token for one", noon))
	admitted(t, "alice, without the token", b.Admit(known(alice), "", noon))
	refused(t, "bob, with alice's token", b.Admit(known(bob), "token for one", noon), "taken by another identity")
	refused(t, "alice, an hour later", b.Check(known(alice), noon.Add(time.Hour)), "was good until 2026-03-01 13:00 UTC")
	// After a restart.
	again := open(t, path, Rules{Mode: Listed})
	admitted(t, "alice, after a restart", again.Admit(known(alice), "", noon))
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), "token for one") || !strings.Contains(string(text), alice.NPub()) {
		t.Errorf("the file holds %s, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// For several, and none for one who needs none.
	_, err = b.Invite("for two", "friends", 2, time.Time{}, noon)
	must(t, err)
	admitted(t, "bob", b.Admit(known(bob), "for two", noon))
	admitted(t, "alice needs no other", b.Admit(known(alice), "for two", noon))
	if list, err := b.Invites(noon); err != nil || len(list) != 2 || len(list[0].Holders)+len(list[1].Holders) != 2 {
		t.Errorf("invitations %+v, %v", list, err)
	}
	gone, err := again.Revoke("friends", noon)
	if err != nil || len(gone) != 1 || len(gone[0].Holders) != 1 || gone[0].Holders[0] != bob {
		t.Errorf("revoked %+v, %v", gone, err)
	}
	refused(t, "bob, once it is revoked", b.Admit(known(bob), "for two", noon), "was revoked")
	refused(t, "bob, without it", b.Admit(known(bob), "", noon), "does not admit")
	if _, err := b.Revoke(one.ID, noon); err != nil {
		t.Error(err)
	}
	for _, which := range []string{"", "friends", one.ID} {
		if _, err := b.Revoke(which, noon); err == nil {
			t.Errorf("%q is revoked", which)
		}
	}
	if _, err := b.Invite("late", "", 1, noon.Add(time.Hour), noon); err != nil {
		t.Fatal(err)
	}
	refused(t, "an invitation that is over", b.Admit(known(bob), "late", noon.Add(time.Hour)), "was good until")
	for _, uses := range []int{-1, 0, MaxUses + 1} {
		if _, err := b.Invite("x", "", uses, time.Time{}, noon); err == nil {
			t.Errorf("an invitation for %d is made", uses)
		}
	}
}

// Of many that show the token of an invitation for one at the same time, to two
// processes, one is admitted.
func TestOneTakesAnInvitation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admission")
	books := []*Book{open(t, path, Rules{Mode: Listed}), open(t, path, Rules{Mode: Listed})}
	_, err := books[0].Invite("token", "", 1, time.Time{}, noon)
	must(t, err)
	var in sync.Map
	var all sync.WaitGroup
	for i := range 20 {
		key := newKey(t)
		all.Go(func() {
			if books[i%2].Admit(known(key), "token", noon) == nil {
				in.Store(key, true)
			}
		})
	}
	all.Wait()
	n := 0
	in.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d are admitted", n)
	}
}

// A file that went bad changes nothing, and stops a start.
func TestBadFile(t *testing.T) {
	path, mallory := filepath.Join(t.TempDir(), "admission"), newKey(t)
	b := open(t, path, Rules{})
	must(t, b.Block(mallory, time.Time{}, "", noon))
	good, err := os.ReadFile(path)
	must(t, err)
	for _, text := range []string{"", "{", "null", `{"version":2}`, string(good) + "x", strings.Replace(string(good), "npub1", "npub2", 1)} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := OpenBook(path, Rules{}); err == nil {
			t.Errorf("%q is opened", text)
		}
		refused(t, "the ban", b.Admit(known(mallory), "", noon), "banned")
		if err := b.Block(newKey(t), time.Time{}, "", noon); err == nil {
			t.Errorf("%q is written over", text)
		}
	}
	must(t, os.WriteFile(path, good, 0o600))
	must(t, os.Chmod(path, 0o622))
	if _, err := OpenBook(path, Rules{}); err == nil {
		t.Error("a file that others can write is believed")
	}
}

func TestWatchTurnsOut(t *testing.T) {
	path, mallory := filepath.Join(t.TempDir(), "admission"), newKey(t)
	b := open(t, path, Rules{})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan error, 100)
	var watching sync.WaitGroup
	watching.Go(func() {
		b.Watch(ctx, func(why func(nostrlink.Client) error) {
			if err := why(known(mallory)); err != nil {
				out <- err
			}
		}, slog.New(slog.DiscardHandler))
	})
	other := open(t, path, Rules{})
	must(t, other.Block(mallory, time.Time{}, "spam", time.Now()))
	refused(t, "turned out", <-out, "spam")
	must(t, other.Unblock(mallory, time.Now()))
	b.SetRules(Rules{Mode: Listed})
	for err := range out {
		if strings.Contains(err.Error(), "does not admit") {
			break
		}
	}
	cancel()
	watching.Wait()
}

// Follow lists are fetched anew, and kept when relays have less than before.
func TestKeepFollows(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		author, early, late := newKey(t), newKey(t), newKey(t)
		b := open(t, filepath.Join(dir, "admission"), Rules{Mode: Trust, FollowsOf: []envelope.PublicKey{author}})
		var mu sync.Mutex
		answer, failure := []announce.Follows(nil), errors.New("no relay answers")
		set := func(lists []announce.Follows, err error) {
			mu.Lock()
			defer mu.Unlock()
			answer, failure = lists, err
		}
		fetched := 0
		ctx, cancel := context.WithCancel(context.Background())
		var keeping sync.WaitGroup
		keeping.Go(func() {
			b.KeepFollows(ctx, func(_ context.Context, of []envelope.PublicKey) ([]announce.Follows, error) {
				mu.Lock()
				defer mu.Unlock()
				fetched++
				if len(of) != 1 || of[0] != author {
					t.Errorf("asked for %v", of)
				}
				return answer, failure
			}, slog.New(slog.DiscardHandler))
		})
		synctest.Wait()
		refused(t, "before there is a list", b.Check(known(early), noon), "does not admit")
		set([]announce.Follows{{Key: author, Created: noon, Keys: []envelope.PublicKey{early}}, {Key: late, Created: noon, Keys: []envelope.PublicKey{late}}}, nil)
		time.Sleep(followsRetry + time.Second)
		admitted(t, "followed", b.Check(known(early), noon))
		refused(t, "a list that nobody asked for", b.Check(known(late), noon), "does not admit")
		for _, worse := range []error{errors.New("down"), nil} {
			set(nil, worse)
			time.Sleep(followsEvery + time.Second)
			admitted(t, "followed, with the list gone", b.Check(known(early), noon))
		}
		set([]announce.Follows{{Key: author, Created: noon.Add(-time.Hour)}}, nil)
		time.Sleep(followsEvery + time.Second)
		admitted(t, "followed, with an older list", b.Check(known(early), noon))
		set([]announce.Follows{{Key: author, Created: noon.Add(time.Hour), Keys: []envelope.PublicKey{late}}}, nil)
		time.Sleep(followsEvery + time.Second)
		refused(t, "followed no more", b.Check(known(early), noon), "does not admit")
		admitted(t, "followed now", b.Check(known(late), noon))
		b.SetRules(Rules{Mode: Listed})
		refused(t, "without the rule", b.Check(known(late), noon), "does not admit")
		cancel()
		keeping.Wait()
		if fetched > 200 {
			t.Errorf("fetched %d times", fetched)
		}
	})
}

func FuzzDecode(f *testing.F) {
	s := newState()
	key := newKey(f)
	s.bans[key] = &Ban{Key: key, Since: noon, Reason: "x"}
	s.invites[hash{1}] = &Invitation{Created: noon, Uses: 2}
	s.take(hash{1}, key)
	text, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"bans":[],"invitations":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := decode(text)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil {
			t.Skip(err) // a year that JSON has no way to write
		}
		back, err := decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if len(back.bans) != len(s.bans) || len(back.invites) != len(s.invites) || back.holders != s.holders {
			t.Fatalf("%s becomes another state", again)
		}
	})
}
