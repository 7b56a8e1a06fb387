package exit

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// usageTest is Servers that have one usage file in turn.
type usageTest struct {
	*testing.T
	path  string
	clock clock
}

func newUsageTest(t *testing.T) *usageTest {
	return &usageTest{t, filepath.Join(t.TempDir(), "usage"), clock{time.Date(2026, 2, 27, 12, 0, 0, 0, time.UTC)}}
}

func (t *usageTest) begin(successor bool) *Server {
	t.Helper()
	s, err := New(Config{UsageFile: t.path, Successor: successor})
	if err != nil {
		t.Fatal(err)
	}
	s.accounts.now = t.clock.read
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (t *usageTest) use(s *Server, who client, n int64) {
	t.Helper()
	c, err := s.accounts.open(who)
	if err != nil {
		t.Fatal(err)
	}
	c.spent.Add(n)
	c.close()
}

func (t *usageTest) wants(s *Server, when string, want int64) {
	t.Helper()
	if day, month := s.accounts.used.of(someone(1).key, t.clock.now); day != want || month != want {
		t.Errorf("%s: %d bytes a day, %d a month, want %d", when, day, month, want)
	}
}

// wantsKept is what the file says.
func (t *usageTest) wantsKept(when string, want int64) {
	t.Helper()
	u, err := loadUsage(t.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, month := u.of(someone(1).key, t.clock.now); month != want {
		t.Errorf("%s: %d bytes are kept, want %d", when, month, want)
	}
}

func (t *usageTest) must(errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// leak check 52: what clients use of an exit that another one takes the place of
// counts there, once
func TestUsageIsPassedOn(tt *testing.T) {
	t := newUsageTest(tt)
	old := t.begin(false)
	t.use(old, someone(1), 1)
	if err := old.PassOnUsage(nil); err != nil {
		t.Errorf("with nobody to pass it on to: %v", err)
	}
	t.must(old.SaveUsage())
	young := t.begin(true)
	t.wants(young, "at its beginning", 1)
	t.use(young, someone(1), 10) // who is early
	t.use(old, someone(1), 100)
	t.must(old.SaveUsage()) // the young one has read it already
	t.use(old, someone(1), 1000)
	t.must(old.HandOverUsage(), young.TakeOverUsage())
	t.wants(young, "when it has taken over", 1111)
	if err := young.PassOnUsage(nil); err != nil {
		t.Errorf("the young one passes on: %v", err)
	}
	t.use(old, someone(1), 10_000)
	t.use(old, client{key: [32]byte{9}}, 100) // that of strangers is not kept
	lost := errors.New("not there")
	if err := old.PassOnUsage(func([]byte) error { return lost }); !errors.Is(err, lost) {
		t.Errorf("passing on: %v", err)
	}
	t.use(old, someone(1), 100_000)
	t.must(old.PassOnUsage(young.AddUsage))
	t.wants(young, "passed on", 111_111)
	if err := old.PassOnUsage(func([]byte) error { return lost }); err != nil {
		t.Errorf("passed on again: %v", err)
	}
	t.must(young.SaveUsage(), old.Close())
	t.wantsKept("when the old one has ended", 111_111)
	// The young one is replaced before the old one has ended.
	youngest := t.begin(true)
	t.use(old, someone(1), 1_000_000)
	t.must(young.HandOverUsage(), youngest.TakeOverUsage())
	t.must(old.PassOnUsage(young.AddUsage), young.PassOnUsage(youngest.AddUsage))
	t.wants(youngest, "at last", 1_111_111)
	for _, text := range []string{"", "x", `{"clients":{"00":{}}}`} {
		if err := youngest.AddUsage([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// Who has not taken over writes nothing, and what its clients have used counts
// where it was to.
func TestUsageOfAFailedTakeover(tt *testing.T) {
	t := newUsageTest(tt)
	old := t.begin(false)
	t.use(old, someone(1), 1)
	t.must(old.SaveUsage())
	young, second := t.begin(true), t.begin(true)
	t.use(young, someone(1), 10)
	t.use(old, someone(1), 100)
	t.must(old.SaveUsage(), young.SaveUsage())
	t.wantsKept("while one waits", 101)
	t.must(young.PassOnUsage(old.AddUsage), young.Close())
	t.wantsKept("when it has given up", 101)
	t.must(old.SaveUsage())
	t.wantsKept("with what was used there", 111)
	// Another one that has waited all the time knows that, too.
	t.must(old.HandOverUsage(), second.TakeOverUsage(), second.SaveUsage(), old.Close())
	t.wants(second, "the second one", 111)
	t.wantsKept("by the second one", 111)
}

// A file that cannot be read when a place is taken is made anew, of what is known.
func TestUsageFileBreaksDuringATakeover(tt *testing.T) {
	t := newUsageTest(tt)
	old := t.begin(false)
	t.use(old, someone(1), 1)
	t.must(old.SaveUsage())
	young := t.begin(true)
	t.use(young, someone(1), 10)
	t.must(old.HandOverUsage(), os.WriteFile(t.path, []byte("x"), 0o600))
	if err := young.TakeOverUsage(); err == nil {
		t.Error("it was read")
	}
	t.must(young.SaveUsage())
	t.wantsKept("by the young one", 11)
}

// What could not be saved is saved the next time, and what a process that was
// killed has left of the file is removed.
func TestUsageIsSavedLater(tt *testing.T) {
	t := newUsageTest(tt)
	left := t.path + ".new-1234"
	t.must(os.WriteFile(left, []byte("half"), 0o600))
	young := t.begin(true)
	if _, err := os.Stat(left); err != nil {
		t.Errorf("another process was disturbed as it wrote: %v", err)
	}
	s := t.begin(false)
	if _, err := os.Stat(left); err == nil {
		t.Error("what was left stays")
	}
	t.use(s, someone(1), 1)
	t.must(os.Mkdir(t.path, 0o700), os.WriteFile(filepath.Join(t.path, "x"), nil, 0o600))
	if err := s.SaveUsage(); err == nil {
		t.Error("it was saved over a directory")
	}
	t.must(os.RemoveAll(t.path), s.SaveUsage())
	t.wantsKept("in the end", 1)
	if found, err := os.ReadDir(filepath.Dir(t.path)); err != nil || len(found) != 1 {
		t.Errorf("beside the file: %v, %v", found, err)
	}
	t.must(young.Close())
}
