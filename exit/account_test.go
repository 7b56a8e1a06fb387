package exit

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

func someone(n byte) client { return client{key: [32]byte{n}, proven: true} }

// clock is a time that only the test moves.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

func testAccounts(l Limits) (*accounts, *clock) {
	c := &clock{time.Date(2026, 2, 27, 12, 0, 0, 0, time.UTC)}
	return newAccounts(l, c.read), c
}

// leak check 52: flows, and flows a second
func TestFlowsOfAClient(t *testing.T) {
	a, clock := testAccounts(Limits{Flows: 3, FlowsPerSecond: 2})
	var open []*account
	for range 3 {
		c, err := a.open(someone(1))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := a.open(someone(1)); reasonOf(err) != ReasonLimit || wire.CodeOf(err) != wire.CodeBusy {
		t.Errorf("a fourth flow: %v", err)
	}
	if _, err := a.open(someone(2)); err != nil {
		t.Errorf("another client: %v", err)
	}
	if _, err := a.open(client{key: [32]byte{1}}); err != nil {
		t.Errorf("who only says that he has that key: %v", err)
	}
	// Too fast, although no longer too many.
	refused := 0
	for range 20 {
		open[0].close()
		c, err := a.open(someone(1))
		if err == nil {
			open[0] = c
			continue
		}
		refused++
		open[0].flows++ // as it was
		open[0].place = nil
	}
	if refused < 10 {
		t.Errorf("of 20 flows at once, %d are refused", refused)
	}
	clock.now = clock.now.Add(10 * time.Second)
	open[0].close()
	if _, err := a.open(someone(1)); err != nil {
		t.Errorf("later: %v", err)
	}
	if n := open[0].refused[ReasonLimit]; n != int64(refused)+1 {
		t.Errorf("%d refusals are counted", n)
	}
}

// leak check 52: a flood of new keys does not push out those with flows
func TestClientsAreBounded(t *testing.T) {
	a, _ := testAccounts(Limits{Clients: 100})
	var busy []*account
	for i := range 200 {
		c, err := a.open(someone(byte(i)))
		switch {
		case err == nil && i < 40:
			busy = append(busy, c)
		case err == nil:
			c.close()
		default:
			t.Fatal(err)
		}
	}
	if len(a.known) != 100 || a.quiet.Len() != 60 {
		t.Errorf("%d clients are known, %d of them quiet", len(a.known), a.quiet.Len())
	}
	for i := range 60 {
		c, err := a.open(someone(byte(100 + i)))
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, c)
	}
	for i := range 50 {
		a.open(client{key: [32]byte{1, byte(i)}})
	}
	if _, err := a.open(someone(250)); reasonOf(err) != ReasonBusy || len(a.known) > 100 {
		t.Errorf("one more: %v, with %d known", err, len(a.known))
	}
	for _, c := range busy {
		c.close()
	}
	if _, err := a.open(someone(250)); err != nil {
		t.Errorf("when others are quiet: %v", err)
	}
}

// leak check 52: quotas, kept across restarts
func TestQuota(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage")
	a, clock := testAccounts(Limits{Day: 10 << 20, Month: 25 << 20})
	use := func(a *accounts, who client) (taken int, err error) {
		c, err := a.open(who)
		if err != nil {
			return 0, err
		}
		defer c.close()
		for {
			if err := c.take(context.Background(), 64<<10); err != nil {
				return taken, err
			}
			taken += 64 << 10
		}
	}
	within := func(got, want int) bool { return got >= want-2*settleEvery && got <= want+settleEvery }
	taken, err := use(a, someone(1))
	if reasonOf(err) != ReasonQuota || !within(taken, 10<<20) || wire.CodeOf(err) != wire.CodeDenied {
		t.Errorf("%d bytes of a day's 10 MiB, then %v", taken, err)
	}
	if _, err := a.open(someone(1)); reasonOf(err) != ReasonQuota || !strings.Contains(err.Error(), "midnight") {
		t.Errorf("a new flow: %v", err)
	}
	if unknown := (client{key: [32]byte{9}}); true {
		if _, err := use(a, unknown); reasonOf(err) != ReasonQuota {
			t.Errorf("an unknown client has no end: %v", err)
		}
		if day, _ := a.used.of(unknown.key, clock.now); day != 0 {
			t.Error("made-up keys fill what is kept")
		}
	}
	if c, err := a.open(someone(2)); err != nil {
		t.Errorf("another client: %v", err)
	} else {
		c.close()
	}
	// After a restart it is as it was.
	b, err := a.saveUsage()
	if err == nil {
		err = writeUsage(path, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.saveUsage(); again != nil || err != nil {
		t.Errorf("saved again without need: %d bytes, %v", len(again), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("%v, %v", info, err)
	}
	a2 := newAccounts(a.limits, clock.read)
	if a2.used, err = loadUsage(path); err != nil {
		t.Fatal(err)
	}
	if _, err := a2.open(someone(1)); reasonOf(err) != ReasonQuota {
		t.Errorf("after a restart: %v", err)
	}
	clock.now = clock.now.Add(24 * time.Hour) // the 28th
	if taken, err = use(a2, someone(1)); !within(taken, 10<<20) {
		t.Errorf("the next day: %d bytes, %v", taken, err)
	}
	clock.now = clock.now.Add(24 * time.Hour) // the 1st of March
	if taken, err = use(a2, someone(1)); !within(taken, 10<<20) {
		t.Errorf("the next month: %d bytes, %v", taken, err)
	}
	for range 2 {
		clock.now = clock.now.Add(24 * time.Hour)
		taken, err = use(a2, someone(1))
	}
	if !within(taken, 5<<20) || !strings.Contains(err.Error(), "first") {
		t.Errorf("the month's rest: %d bytes, %v", taken, err)
	}
}

// What is of another month or day does not count for this one.
func TestUsageOfOtherTimes(t *testing.T) {
	evening := time.Date(2026, 2, 27, 23, 59, 0, 0, time.UTC)
	for _, test := range []struct {
		earlier    time.Duration // than the evening
		day, month int64
	}{{0, 11, 11}, {24 * time.Hour, 1, 11}, {27 * 24 * time.Hour, 1, 1}} {
		u, more := newUsage(), newUsage()
		u.add([32]byte{1}, 1, evening)
		more.add([32]byte{1}, 10, evening.Add(-test.earlier))
		u.merge(more, evening)
		if day, month := u.of([32]byte{1}, evening); day != test.day || month != test.month {
			t.Errorf("%v earlier: %d, %d, want %d, %d", test.earlier, day, month, test.day, test.month)
		}
	}
}

func TestUsageFileThatMakesNoSense(t *testing.T) {
	for _, text := range []string{"", "x", `{"month":"2026-02","clients":{"00":{}}}`, `{"clients":{"` + strings.Repeat("0", 64) + `":{"bytes":-1}}}`, `{"clients":{"` + strings.Repeat("0", 64) + `":null}}`} {
		path := filepath.Join(t.TempDir(), "usage")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{UsageFile: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
	s, err := New(Config{UsageFile: filepath.Join(t.TempDir(), "missing", "usage")})
	if err != nil {
		t.Fatal(err)
	}
	s.accounts.used.add([32]byte{1}, 1, time.Now())
	if err := s.Close(); err == nil {
		t.Error("quotas that cannot be saved are no error")
	}
}

// leak check 52: keys that are made at will cost nobody his quota
func TestUsageIsBounded(t *testing.T) {
	a, clock := testAccounts(Limits{Day: 1000})
	key := func(kind byte, i int) [32]byte { return [32]byte{kind, byte(i), byte(i >> 8), byte(i >> 16)} }
	const guests = 1000
	for i := range guests {
		a.used.add(key(1, i), int64(10+i), clock.now)
	}
	a.used.add(key(2, 0), 1000, clock.now)
	for i := range maxUsage + 2*usageRoom {
		a.used.add(key(3, i), int64(1+i%2), clock.now)
	}
	if n := len(a.used.clients); n > maxUsage || n < maxUsage-usageRoom {
		t.Errorf("%d clients are kept", n)
	}
	for i := range guests {
		if day, _ := a.used.of(key(1, i), clock.now); day != int64(10+i) {
			t.Fatalf("of %d bytes, %d are remembered", 10+i, day)
		}
	}
	if _, err := a.open(client{key(2, 0), true}); reasonOf(err) != ReasonQuota {
		t.Errorf("who has used up a day: %v", err)
	}
	if _, err := a.open(client{key(4, 0), true}); err != nil {
		t.Errorf("who has used nothing: %v", err)
	}
}

func BenchmarkUsageOfNewcomers(b *testing.B) {
	u, now := newUsage(), time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	var key [32]byte
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint64(key[:], uint64(i))
		u.add(key, int64(i%1000), now)
	}
}

// The pace of one client, in fake time.
//
// leak check 52: bytes a second of one client
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccounts(Limits{BytesPerSecond: 1 << 20}, time.Now)
		c, err := a.open(someone(1))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 10 << 20 / (64 << 10) {
			if err := c.take(t.Context(), 64<<10); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10 MiB at 1 MiB a second take %v", took)
		}
	})
}

// meterPair is a metered flow and the client's end of it.
func meterPair(t *testing.T, l Limits) (m *meter, client net.Conn) {
	a := newAccounts(l, time.Now)
	c, err := a.open(someone(1))
	if err != nil {
		t.Fatal(err)
	}
	in, client := net.Pipe()
	m = newMeter(t.Context(), c, "tcp", in)
	t.Cleanup(func() { m.Close(); client.Close() })
	return m, client
}

func TestMeterCounts(t *testing.T) {
	m, client := meterPair(t, Limits{})
	go func() { io.WriteString(client, "hello"); io.ReadFull(client, make([]byte, 3)); client.Close() }()
	var got strings.Builder
	done := make(chan error)
	go func() { _, err := m.WriteTo(&got); done <- err }()
	if _, err := m.Write([]byte("yes")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || got.String() != "hello" {
		t.Errorf("got %q, %v", &got, err)
	}
	if c := m.account; c.sent.Load() != 5 || c.received.Load() != 3 {
		t.Errorf("%d sent, %d received", c.sent.Load(), c.received.Load())
	}
}

// leak check 52: idle and half-open flows end, and old ones
func TestFlowsEndInTime(t *testing.T) {
	for name, l := range map[string]Limits{"idle": {FlowIdle: time.Minute}, "life": {FlowLife: time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			m, client := meterPair(t, l)
			go io.Copy(io.Discard, client)
			began := time.Now()
			for range 5 { // it is busy for 50 s
				time.Sleep(10 * time.Second)
				if _, err := m.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			_, err := m.Read(make([]byte, 1))
			want := time.Minute
			if name == "idle" {
				want += 50 * time.Second
			}
			if took := time.Since(began); err == nil || took != want {
				t.Errorf("%s: ended after %v with %v", name, took, err)
			}
		})
	}
}

// A flow that waits for its limits ends when it is told to.
func TestMeterLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, client := meterPair(t, Limits{TotalBytesPerSecond: 1})
		go io.Copy(io.Discard, client)
		done := make(chan error)
		go func() {
			_, err := m.Write(make([]byte, 1<<20))
			done <- err
		}()
		synctest.Wait()
		m.Abort(io.ErrUnexpectedEOF)
		if err := <-done; err == nil {
			t.Error("all was written")
		}
	})
}

func TestQueriesOfAClient(t *testing.T) {
	dns := newDNS(t, zone{"a.example": {{addrs: []string{"1.1.1.1"}}}})
	cfg := dns.config()
	cfg.Limits = Limits{QueriesPerSecond: 1}
	s := newServer(t, cfg)
	peer, _ := open(t, s, "dns", "")
	refused := 0
	for range 20 {
		q, err := newQuery("a.example", dnsmessage.TypeA)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFramed(peer, q.raw); err != nil {
			t.Fatal(err)
		}
		answer, err := readFramed(peer, 1<<16-1)
		if err != nil {
			t.Fatal(err)
		}
		if dnsmessage.RCode(answer[3]&0xf) == dnsmessage.RCodeRefused {
			refused++
		}
	}
	if refused < 10 || refused == 20 {
		t.Errorf("of 20 queries at once, %d are refused", refused)
	}
	if n := s.Stats().Refused[ReasonQueries]; n != int64(refused) {
		t.Errorf("%d of the %d refusals are counted", n, refused)
	}
	if c := s.Report(1).Clients; len(c) != 1 || c[0].Refused[ReasonQueries] != int64(refused) {
		t.Errorf("the client's account: %+v", c)
	}
}

// A quota ends the flow, and the client learns why.
func TestQuotaEndsAFlow(t *testing.T) {
	l := listenTCP(t, "127.0.0.1")
	s := newServer(t, Config{Limits: Limits{Day: 1}})
	noon := time.Date(2026, 2, 27, 12, 0, 0, 0, time.UTC)
	s.accounts.now = func() time.Time { return noon } // no day ends meanwhile
	peer, done := open(t, s, "tcp", l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.Copy(peer, strings.NewReader(strings.Repeat("x", 4<<20)))
	if n, _ := io.Copy(io.Discard, conn); n >= 4<<20 {
		t.Errorf("%d bytes pass", n)
	}
	<-done
	if err := rejection(t, s, "tcp", l.Addr().String()); reasonOf(err) != ReasonQuota {
		t.Errorf("the next flow: %v", err)
	}
	if n := s.Stats().Refused[ReasonQuota]; n != 1 {
		t.Errorf("%d refusals are counted", n)
	}
}

// Limits hold for flows that were open while there were none, and go again.
func TestLimitsReachOpenFlows(t *testing.T) {
	for name, l := range map[string]Limits{"day": {Day: 1000}, "month": {Month: 1000}, "pace": {BytesPerSecond: 1}, "share": {TotalBytesPerSecond: 1}} {
		synctest.Test(t, func(t *testing.T) {
			m, client := meterPair(t, Limits{})
			go io.Copy(io.Discard, client)
			began, much := time.Now(), make([]byte, 2*settleEvery)
			write := func() error { _, err := m.Write(much); return err }
			if err := write(); err != nil || time.Now() != began {
				t.Errorf("%s: without limits: %v after %v", name, err, time.Since(began))
			}
			m.account.of.setLimits(l)
			err := write()
			if l.Day+l.Month > 0 && reasonOf(err) != ReasonQuota {
				t.Errorf("%s: beyond the quota: %v", name, err)
			}
			if l.Day+l.Month == 0 && (err != nil || time.Since(began) < time.Hour) {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
			m.account.of.setLimits(Limits{})
			began = time.Now()
			if err := write(); err != nil || time.Now() != began {
				t.Errorf("%s: again without limits: %v after %v", name, err, time.Since(began))
			}
		})
	}
}

// The rate that all share may change while clients wait for their turns: each
// still gets it, and no more than one at a time looks after a client's.
func TestSharedRateChangesUnderLoad(t *testing.T) {
	const flows, parts = 8, 40
	a := newAccounts(Limits{TotalBytesPerSecond: 16 << 20}, time.Now)
	var clients sync.WaitGroup
	for n := range byte(4) {
		c, err := a.open(someone(n))
		if err != nil {
			t.Fatal(err)
		}
		for range flows {
			clients.Go(func() {
				for range parts {
					if err := c.take(t.Context(), mostQuantum); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for n := int64(0); ; n++ {
		select {
		case <-done:
			return
		default:
			a.setLimits(Limits{TotalBytesPerSecond: 16<<20 + n%3})
			time.Sleep(time.Millisecond)
		}
	}
}
