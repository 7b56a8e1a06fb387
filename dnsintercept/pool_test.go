package dnsintercept

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func host(n int) string { return fmt.Sprintf("name-%d.nostr", n) }

// give makes p give n names addresses and checks that all differ.
func give(t *testing.T, p *Pool, n int) []netip.Addr {
	t.Helper()
	seen := make(map[netip.Addr]bool)
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		v4, v6, err := p.Address(host(i))
		if err != nil {
			t.Fatalf("name %d: %v", i, err)
		}
		if seen[v4] || seen[v6] {
			t.Fatalf("name %d: %s or %s is given twice", i, v4, v6)
		}
		seen[v4], seen[v6] = true, true
		for _, addr := range []netip.Addr{v4, v6, netip.AddrFrom16(v4.As16()), v6.WithZone("tun0")} {
			if got, ok := p.Host(addr); !ok || got != host(i) {
				t.Fatalf("%s stands for %q, want %q", addr, got, host(i))
			}
		}
		addrs[i] = v4
	}
	return addrs
}

func TestPoolFillsItsWholeRange(t *testing.T) {
	// The smallest range, so that probing has to find the very last slot.
	rng := Range{V4: netip.MustParsePrefix("10.9.0.7/22")}
	p := newPool(t, PoolOptions{Range: rng, Capacity: 1 << 20})
	addrs := give(t, p, 1024-reserved-1)
	for _, addr := range addrs {
		checkFake(t, addr, "10.9.1.0", "10.9.3.254")
	}
	if _, _, err := p.Address("one-more.nostr"); !errors.Is(err, errPoolFull) {
		t.Errorf("a full pool: %v", err)
	}
	if p.Len() != len(addrs) {
		t.Errorf("%d names, want %d", p.Len(), len(addrs))
	}
}

func TestPoolAddressesFollowFromTheKey(t *testing.T) {
	a, b := give(t, newPool(t, PoolOptions{}), 3), give(t, newPool(t, PoolOptions{}), 3)
	other, err := NewPool([32]byte{8}, PoolOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := give(t, other, 3)
	for i := range a {
		if a[i] != b[i] {
			t.Errorf("same key: %s and %s", a[i], b[i])
		}
		if a[i] == c[i] {
			t.Errorf("another key: %s as well", a[i])
		}
	}
}

// leak check 43: the oldest idle name goes
func TestPoolGivesUpTheLeastRecentlyUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, PoolOptions{Capacity: 3})
		addrs := give(t, p, 3)
		time.Sleep(time.Hour)
		p.Address(host(0)) // now 1 is the oldest
		_, release, ok := p.Acquire(addrs[1])
		if !ok {
			t.Fatal("no such address")
		}

		time.Sleep(defaultHold - time.Hour - time.Second)
		if _, _, err := p.Address(host(3)); !errors.Is(err, errPoolFull) {
			t.Errorf("within 24 h: %v", err)
		}
		time.Sleep(time.Second)
		if _, _, err := p.Address(host(3)); err != nil {
			t.Errorf("after 24 h: %v", err)
		}
		checkKnown(t, p, true, true, false, true)

		// 0 was used an hour later than 2, 1 is still in use.
		time.Sleep(time.Hour)
		if _, _, err := p.Address(host(4)); err != nil {
			t.Errorf("after 25 h: %v", err)
		}
		checkKnown(t, p, false, true, false, true, true)

		time.Sleep(48 * time.Hour)
		release()
		release() // once too often
		for i := 5; i < 7; i++ {
			if _, _, err := p.Address(host(i)); err != nil {
				t.Errorf("name %d: %v", i, err)
			}
		}
		if _, _, err := p.Address(host(7)); !errors.Is(err, errPoolFull) {
			t.Errorf("released just now: %v", err)
		}
		checkKnown(t, p, false, true, false, false, false, true, true)
	})
}

// checkKnown checks which of host(0), host(1)… have an address.
func checkKnown(t *testing.T, p *Pool, want ...bool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for i, known := range want {
		if (p.byHost[host(i)] != nil) != known {
			t.Errorf("%s has an address: %v", host(i), !known)
		}
		if known {
			n++
		}
	}
	if len(p.byHost) != n || len(p.bySlot) != n {
		t.Errorf("%d names, %d slots, want %d", len(p.byHost), len(p.bySlot), n)
	}
}

// leak check 43: addresses of live flows stay, or an error
func TestPoolKeepsWhatIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, PoolOptions{Capacity: 1})
		addr := give(t, p, 1)[0]
		var releases []func()
		for range 2 {
			got, release, ok := p.Acquire(addr)
			if !ok || got != host(0) {
				t.Fatalf("Acquire: %q, %v", got, ok)
			}
			releases = append(releases, release)
		}
		for _, release := range releases {
			time.Sleep(1000 * time.Hour)
			if _, _, err := p.Address(host(1)); !errors.Is(err, errPoolFull) {
				t.Errorf("an address in use was given away: %v", err)
			}
			release()
		}
		time.Sleep(defaultHold)
		if _, _, err := p.Address(host(1)); err != nil {
			t.Error(err)
		}
		if _, _, ok := p.Acquire(addr); ok != (addr == p.rng.addr4(p.byHost[host(1)].slot)) {
			t.Errorf("the old address is known: %v", ok)
		}
	})
}

func TestPoolUnknownAddresses(t *testing.T) {
	p := newPool(t, PoolOptions{})
	give(t, p, 1)
	for addr, in := range map[string]bool{
		"198.18.0.1": true, "198.18.0.2": true, "198.19.255.255": true, "::ffff:198.18.0.2": true,
		"fd6e:7773:7670::2": true, "fd6e:7773:7670:1::1": true, "fd6e:7773:7670:2::100": true,
		"198.17.255.255": false, "198.20.0.0": false, "fd6e:7773:7671::1": false, "1.1.1.1": false, "::1": false,
	} {
		a := netip.MustParseAddr(addr)
		if p.Contains(a) != in {
			t.Errorf("Contains(%s) = %v", addr, !in)
		}
		if _, _, ok := p.Acquire(a); ok {
			t.Errorf("Acquire(%s) succeeded", addr)
		}
	}
	if p.Contains(netip.Addr{}) {
		t.Error("the range contains no address at all")
	}
}

// leak check 45: a free range is chosen
func TestFreeRange(t *testing.T) {
	for _, tt := range []struct {
		used   string
		v4, v6 string
		usual  bool
	}{
		{"", "198.18.0.0/15", "fd6e:7773:7670::/48", true},
		{"10.0.0.0/8 192.168.1.0/24 2001:db8::/32 fd00::/16", "198.18.0.0/15", "fd6e:7773:7670::/48", true},
		{"198.18.0.0/24", "198.19.0.0/16", "fd6e:7773:7670::/48", false},
		{"198.19.7.7/32", "198.18.0.0/16", "fd6e:7773:7670::/48", false},
		{"198.18.0.0/15 100.64.0.0/10", "172.29.0.0/16", "fd6e:7773:7670::/48", false},
		{"fd6e:7773:7670:1::/64 fd6e:7773:7671::1/128", "198.18.0.0/15", "fd6e:7773:7672::/48", false},
		{"198.0.0.0/8 100.64.0.0/10 172.16.0.0/12 10.0.0.0/8 fd00::/8", "198.18.0.0/15", "fd6e:7773:7670::/48", true},
	} {
		var used []netip.Prefix
		for text := range strings.FieldsSeq(tt.used) {
			used = append(used, netip.MustParsePrefix(text))
		}
		r, usual := FreeRange(used)
		if r.V4.String() != tt.v4 || r.V6.String() != tt.v6 || usual != tt.usual {
			t.Errorf("beside %q: %v, %v", tt.used, r, usual)
		}
		p, err := NewPool([32]byte{}, PoolOptions{Range: r})
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range r.Networks() {
			if !n.Contains(r.Device()[i].Addr()) || !r.isServer(r.Servers()[i]) || p.Range() != r {
				t.Errorf("%v has the device %v and the servers %v", r, r.Device(), r.Servers())
			}
		}
	}
	if r := (Range{}); r.Servers()[0].String() != "198.18.0.2" || r.Device()[1].String() != "fd6e:7773:7670::1/128" {
		t.Errorf("the zero range has the device %v and the servers %v", r.Device(), r.Servers())
	}
}

func TestPoolRefusesRanges(t *testing.T) {
	for _, rng := range []Range{
		{V4: netip.MustParsePrefix("10.0.0.0/23")},
		{V4: netip.MustParsePrefix("0.0.0.0/0")},
		{V4: netip.MustParsePrefix("fd00::/20")},
		{V6: netip.MustParsePrefix("fd00::/64")},
		{V6: netip.MustParsePrefix("10.0.0.0/16")},
		{V6: netip.MustParsePrefix("::/0")},
	} {
		if _, err := NewPool([32]byte{}, PoolOptions{Range: rng}); err == nil {
			t.Errorf("range %v was taken", rng)
		}
	}
}

func TestPoolSavesBeforeItAnswers(t *testing.T) {
	store := &memStore{}
	var p *Pool
	store.saving = func(e Entry) {
		if _, ok := p.Host(p.rng.addr4(e.Slot)); ok {
			t.Error("the address was known before it was saved")
		}
	}
	p = newPool(t, PoolOptions{Store: store})
	addr := give(t, p, 1)[0]
	if len(store.entries) != 1 || p.rng.addr4(store.entries[0].Slot) != addr || store.entries[0].Host != host(0) {
		t.Fatalf("saved %v", store.entries)
	}

	store.err = errors.New("disk full")
	store.saving = nil
	if _, _, err := p.Address(host(1)); !errors.Is(err, store.err) {
		t.Errorf("a name that could not be saved: %v", err)
	}
	if got, _, err := p.Address(host(0)); err != nil || got != addr {
		t.Errorf("a name saved earlier: %s, %v", got, err)
	}
	store.err = nil
	if _, _, err := p.Address(host(1)); err != nil {
		t.Errorf("the disk has room again: %v", err)
	}
}

func TestPoolRemembers(t *testing.T) {
	// Many names in a small range: most addresses come from probing, and would
	// differ if the names were asked for in another order.
	rng := Range{V4: netip.MustParsePrefix("10.9.0.0/22")}
	store := &memStore{}
	before := give(t, newPool(t, PoolOptions{Range: rng, Store: store}), 700)
	p := newPool(t, PoolOptions{Range: rng, Store: store})
	for i := len(before) - 1; i >= 0; i-- {
		if got, _, err := p.Address(host(i)); err != nil || got != before[i] {
			t.Fatalf("%s: %s, before the restart %s, %v", host(i), got, before[i], err)
		}
	}
	store.err = errors.New("cannot be read")
	if _, err := NewPool([32]byte{}, PoolOptions{Store: store}); !errors.Is(err, store.err) {
		t.Errorf("a store that cannot be read: %v", err)
	}
}

func TestPoolLoadsWithCare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		store := &memStore{entries: []Entry{
			{"a.nostr", 300, now.Add(-72 * time.Hour)},
			{"b.nostr", 300, now.Add(-50 * time.Hour)}, // took a's slot
			{"b.nostr", 301, now.Add(-49 * time.Hour)}, // and moved
			{"c.nostr", 302, now.Add(1000 * time.Hour)},
			{"old.nostr", 303, now.Add(-100 * time.Hour)}, // beyond the capacity
			{"low.nostr", 255, now}, {"high.nostr", 1<<17 - 1, now}, {"huge.nostr", 1<<32 - 1, now},
			{"example..com", 304, now}, {"UPPER.nostr", 305, now}, {"two words.nostr", 306, now}, {"", 307, now},
		}}
		p := newPool(t, PoolOptions{Store: store, Capacity: 2})
		checkHosts(t, p, map[uint32]string{300: "", 301: "b.nostr", 302: "c.nostr", 303: ""})
		if p.Len() != 2 {
			t.Errorf("%d names", p.Len())
		}
		// b was last used more than a day ago, c cannot have been in the future.
		for i, want := range []error{nil, errPoolFull} {
			if _, _, err := p.Address(host(i)); !errors.Is(err, want) {
				t.Errorf("new name %d: %v, want %v", i, err, want)
			}
		}
		time.Sleep(defaultHold)
		if _, _, err := p.Address(host(2)); err != nil {
			t.Error(err)
		}
		p = newPool(t, PoolOptions{Store: &memStore{entries: store.entries[:3]}})
		checkHosts(t, p, map[uint32]string{300: "", 301: "b.nostr"})
	})
}

func checkHosts(t *testing.T, p *Pool, bySlot map[uint32]string) {
	t.Helper()
	for slot, want := range bySlot {
		if got, _ := p.Host(p.rng.addr4(slot)); got != want {
			t.Errorf("slot %d: %q, want %q", slot, got, want)
		}
	}
}

func TestPoolTrustsTheSavedUseOnlySoFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// It may have been used again within saveEvery after that.
		store := &memStore{entries: []Entry{{host(0), 300, time.Now().Add(-defaultHold)}}}
		p := newPool(t, PoolOptions{Store: store, Capacity: 1})
		for _, want := range []error{errPoolFull, nil} {
			if _, _, err := p.Address(host(1)); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			time.Sleep(saveEvery)
		}
	})
}

func TestLedger(t *testing.T) {
	l := newLedger()
	for _, e := range []Entry{
		{Host: "a", Slot: 1}, {Host: "b", Slot: 2}, {Host: "b", Slot: 1}, {Host: "c", Slot: 3}, {Host: "a", Slot: 3},
	} {
		l.add(e)
	}
	if len(l.bySlot) != 2 || l.bySlot[1].Host != "b" || l.bySlot[3].Host != "a" || len(l.byHost) != 2 {
		t.Errorf("%v, %v", l.bySlot, l.byHost)
	}
}

func TestPoolSavesUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memStore{}
		p := newPool(t, PoolOptions{Store: store})
		saves := func() int { return len(store.entries) }
		addr := give(t, p, 1)[0]
		give(t, p, 1)
		time.Sleep(saveEvery - time.Second)
		give(t, p, 1)
		if saves() != 1 {
			t.Errorf("%d saves within an hour", saves())
		}
		time.Sleep(time.Second)
		give(t, p, 1)
		if saves() != 2 || !store.entries[1].Used.Equal(time.Now()) {
			t.Errorf("after an hour: %v", store.entries)
		}
		_, release, _ := p.Acquire(addr)
		time.Sleep(5 * time.Hour)
		release()
		if saves() != 3 || !store.entries[2].Used.Equal(time.Now()) {
			t.Errorf("after a long flow: %v", store.entries)
		}
	})
}

func TestPoolConcurrently(t *testing.T) {
	store := &memStore{}
	p := newPool(t, PoolOptions{Capacity: 64, Hold: time.Nanosecond, Store: store})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 300 {
				name := host((n*7 + w) % 100)
				v4, v6, err := p.Address(name)
				if err != nil {
					continue // all in use
				}
				if got, release, ok := p.Acquire(v6); ok {
					if again, known := p.Host(v4); !known || again != got {
						t.Errorf("%s changed from %q to %q while in use", v4, got, again)
					}
					release()
				}
			}
		})
	}
	wg.Wait()
	known := newLedger()
	for _, e := range store.entries {
		known.add(e)
	}
	for slot, e := range p.bySlot {
		if known.bySlot[slot].Host != e.host {
			t.Errorf("slot %d: %q, saved as %q", slot, e.host, known.bySlot[slot].Host)
		}
		if e.flows != 0 || e.elem == nil {
			t.Errorf("slot %d: %d flows left", slot, e.flows)
		}
	}
	if p.Len() > 64 || p.idle.Len() != p.Len() {
		t.Errorf("%d names, %d of them idle", p.Len(), p.idle.Len())
	}
}
