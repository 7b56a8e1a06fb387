package relayd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
)

// subscriptionFor files a subscription with these filters.
func subscriptionFor(t testing.TB, x *index, filters ...nip01.Filter) *subscription {
	t.Helper()
	sub := &subscription{}
	for i := range filters {
		f := newFilter(&filters[i], 500)
		sub.filters = append(sub.filters, f)
		sub.filings = append(sub.filings, &filing{sub, f})
		sub.values += f.values()
	}
	if !x.replace(nil, sub) {
		t.Fatal("the index is full")
	}
	return sub
}

// tagged makes an event with these tags.
func tagged(t testing.TB, sk envelope.SecretKey, kind int, tags [][]string) (*envelope.Event, []byte) {
	t.Helper()
	raw, _ := envelopetest.Sign(t, sk, envelope.Template{Kind: kind, CreatedAt: time.Unix(1, 0), Tags: tags})
	return envelopetest.Parse(t, raw), raw
}

// numbered is n values of which each second of two lists with other offsets
// would lie between two of them.
func numbered(n, offset int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprintf("%06d", 2*i+offset))
	}
	return values
}

// Whatever tags and filters somebody chooses, an event takes no more steps than
// there are values in the filters.
func TestMatchIsLinear(t *testing.T) {
	const n = 1000
	sk := envelopetest.NewKey(t)
	var repeated, alternating [][]string
	for _, v := range numbered(n, 0) {
		repeated = append(repeated, []string{"p", "x"}, []string{"q", "x"})
		alternating = append(alternating, []string{"p", v}, []string{"q", v})
	}
	for what, c := range map[string]struct {
		filter nip01.Filter
		copies int
		tags   [][]string
	}{
		"a tag repeated":        {nip01.Filter{Tags: map[string][]string{"p": {"x"}, "q": {"y", "z"}}}, 1024, repeated},
		"found by many tags":    {nip01.Filter{Tags: map[string][]string{"p": numbered(n, 0), "q": numbered(n+1, 1)}}, 8, alternating},
		"and by one tag only":   {nip01.Filter{Tags: map[string][]string{"p": numbered(1, 0), "q": numbered(n+1, 1)}}, 8, alternating},
		"and with other kinds":  {nip01.Filter{Tags: map[string][]string{"p": numbered(n, 0)}, Kinds: []int{1}}, 8, alternating},
		"and for several times": {nip01.Filter{Tags: map[string][]string{"p": numbered(n, 0), "r": numbered(n, 0)}, Kinds: []int{20000}}, 8, alternating},
	} {
		x := newIndex(1 << 20)
		for range c.copies {
			subscriptionFor(t, x, c.filter)
		}
		e, _ := tagged(t, sk, 20000, c.tags)
		m := matcher{index: x}
		if found := m.match(e); len(found) != 0 {
			t.Errorf("%s: found %d", what, len(found))
		}
		if m.steps == 0 || m.steps > 2*x.values {
			t.Errorf("%s: %d steps for filters with %d values", what, m.steps, x.values)
		}
		if m.forget(); cap(m.tags) > keptRoom || len(m.tried) > keptRoom {
			t.Errorf("%s: keeps room for %d tags", what, cap(m.tags))
		}
	}
}

// A stored event that a filter is held against takes no more steps than there
// are values in the filter, however many tags it has.
func TestStoredTagsAreSearched(t *testing.T) {
	sk := envelopetest.NewKey(t)
	wanted := map[string][]string{"z": {"b"}}
	var tags [][]string
	for range 1000 {
		tags = append(tags, []string{"z", "a"}, []string{"longer", "a"})
	}
	for letter := byte('a'); letter < 'z'; letter++ {
		tags = append(tags, []string{string(letter), "x"})
		wanted[string(letter)] = []string{"w", "x"}
	}
	_, raw := tagged(t, sk, 3, tags)
	n, err := newStored(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(n.tags) != 26 || cap(n.tags) > 64 {
		t.Fatalf("%d tags are kept, with room for %d", len(n.tags), cap(n.tags))
	}
	f := newFilter(&nip01.Filter{Tags: wanted}, 500)
	s := subject{event: &n.event, tags: n.tags}
	if f.matchesAll(&s) || s.steps == 0 || s.steps > f.values() {
		t.Errorf("%d steps for a filter with %d values", s.steps, f.values())
	}
}

// TestMatchAgainstPlainReading compares the index and the store with the plain
// reading of many filters, of which most events match some.
func TestMatchAgainstPlainReading(t *testing.T) {
	sks := []envelope.SecretKey{envelopetest.NewKey(t), envelopetest.NewKey(t)}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 0))
		x, kept := newIndex(1<<20), newStore(&Limits{MaxStored: 100, MaxStoredBytes: 1 << 24})
		var subs []*subscription
		var plain [][]nip01.Filter
		for range 1 + r.IntN(60) {
			var filters []nip01.Filter
			for range 1 + r.IntN(3) {
				filters = append(filters, anyFilter(r, sks))
			}
			plain = append(plain, filters)
			subs = append(subs, subscriptionFor(t, x, filters...))
		}
		wanted := make([]int, len(subs))
		m := matcher{index: x}
		for n := range 10 {
			e, raw := tagged(t, sks[r.IntN(2)], 40+r.IntN(3), append(anyTags(r), []string{"n", fmt.Sprint(n)}))
			found := slices.Clone(m.match(e))
			for i, sub := range subs {
				times := 0
				for _, f := range found {
					if f == sub {
						times++
					}
				}
				want := 0
				if slices.ContainsFunc(plain[i], func(f nip01.Filter) bool { return wants(&f, e) }) {
					want = 1
				}
				if times != want {
					t.Fatalf("seed %d, event %d: found subscription %d %d times, want %d: %v", seed, n, i, times, want, plain[i])
				}
				wanted[i] += want
			}
			kept.put(e, raw, time.Unix(1, 0))
		}
		for i, sub := range subs {
			if got := kept.query(sub.filters, time.Unix(1, 0)); len(got) != wanted[i] {
				t.Fatalf("seed %d: the store found %d of %d: %v", seed, len(got), wanted[i], plain[i])
			}
			if got := kept.count(sub.filters, time.Unix(1, 0)); got != wanted[i] {
				t.Fatalf("seed %d: the store counted %d of %d: %v", seed, got, wanted[i], plain[i])
			}
		}
	}
}

func anyFilter(r *rand.Rand, sks []envelope.SecretKey) (f nip01.Filter) {
	if r.IntN(3) == 0 {
		f.Kinds = []int{40 + r.IntN(3), 40 + r.IntN(3)}
	}
	if r.IntN(3) == 0 {
		f.Authors = []string{sks[r.IntN(len(sks))].Public().Hex()}
	}
	for _, letter := range []string{"a", "b", "c"} {
		if r.IntN(2) == 0 {
			if f.Tags == nil {
				f.Tags = make(map[string][]string)
			}
			for range 1 + r.IntN(30) {
				f.Tags[letter] = append(f.Tags[letter], fmt.Sprint(r.IntN(60)))
			}
		}
	}
	return f
}

func anyTags(r *rand.Rand) [][]string {
	tags := [][]string{{"a"}, {"long", "1"}, {""}, {}}
	for range r.IntN(40) {
		tags = append(tags, []string{string("abcd"[r.IntN(4)]), fmt.Sprint(r.IntN(60)), "x"})
	}
	return tags
}

// A filter is no larger than what it is charged for.
func TestFilterKeepsNoRoom(t *testing.T) {
	const many = 10000
	equal := slices.Repeat([]string{"x"}, many)
	key := slices.Repeat([]string{fmt.Sprintf("%064x", 7)}, many)
	f := newFilter(&nip01.Filter{IDs: key, Authors: key, Kinds: make([]int, many), Tags: map[string][]string{"p": equal}}, 500)
	if n := cap(f.ids) + cap(f.authors) + cap(f.kinds) + cap(f.tags[0].values); n > 100 || f.values() != 5 {
		t.Errorf("a filter of %d values has room for %d", f.values(), n)
	}
	f = newFilter(&nip01.Filter{IDs: []string{}, Kinds: []int{1, 2, 3}, Tags: map[string][]string{"p": {"x"}}}, 500)
	if f.filed != nowhere || f.kinds != nil || f.tags != nil {
		t.Errorf("a filter that nothing matches keeps %+v", f)
	}
	f = newFilter(&nip01.Filter{Tags: map[string][]string{"p": {string(make([]byte, 100*valueSize))}}}, 500)
	if f.values() != 102 {
		t.Errorf("a value of %d bytes counts as %d", 100*valueSize, f.values()-1)
	}
}

// Lists that were long for a while do not keep the memory.
func TestListsShrink(t *testing.T) {
	x := newIndex(1 << 20)
	filter := nip01.Filter{Tags: map[string][]string{"p": {"x"}}}
	var subs []*subscription
	for range 1000 {
		subs = append(subs, subscriptionFor(t, x, filter))
	}
	kept := newStore(&Limits{MaxStored: 500, MaxStoredBytes: 1 << 24})
	for n := range 200 {
		e, raw := tagged(t, envelopetest.NewKey(t), 40, [][]string{{"p", "x"}, {"n", fmt.Sprint(n)}})
		kept.put(e, raw, time.Unix(1, 0))
	}
	for _, sub := range subs[1:] {
		x.replace(sub, nil)
	}
	kept.setLimits(&Limits{MaxStored: 1, MaxStoredBytes: 1 << 24}, time.Unix(1, 0))
	list, shelf := x.byTag[tagValue{'p', "x"}], kept.byTag[tagValue{'p', "x"}]
	if len(list) != 1 || cap(list) > 40 || len(shelf) != 1 || cap(shelf) > 40 {
		t.Errorf("%d of %d subscriptions, %d of %d events", len(list), cap(list), len(shelf), cap(shelf))
	}
}

// Of several subscribers each connection is asked once whether it is one that
// the event is for.
func TestAddressed(t *testing.T) {
	var keys []envelope.PublicKey
	var tags [][]string
	for range 5 {
		key := envelopetest.NewKey(t).Public()
		keys, tags = append(keys, key), append(tags, []string{"p", key.Hex()}, []string{"p", key.Hex()})
	}
	e, _ := tagged(t, envelopetest.NewKey(t), 28333, tags[:8]) // not to the last
	stranger, one, many, last := &conn{}, &conn{}, &conn{}, &conn{}
	one.identity.add(keys[1], nil)
	last.identity.add(keys[4], nil)
	for range 20 {
		many.identity.add(envelopetest.NewKey(t).Public(), nil)
	}
	sub := func(c *conn) *subscription { return &subscription{conn: c} }
	if targets, some := addressed(e, []*subscription{sub(many), sub(stranger), sub(many), sub(last)}); some || len(targets) != 2 {
		t.Errorf("it is for none of them, not %v", targets)
	}
	many.identity.add(keys[0], nil)
	targets, some := addressed(e, []*subscription{sub(many), sub(one), sub(stranger), sub(one), sub(last)})
	if !some || len(targets) != 3 || !targets[many] || !targets[one] || targets[last] {
		t.Errorf("it is for two of them, not %v", targets)
	}
}

// A gift wrap may be deleted by whom it is for, as its author is nobody.
func TestGiftWrapIsDeletedByItsRecipient(t *testing.T) {
	sender, recipient, stranger := envelopetest.NewKey(t), envelopetest.NewKey(t), envelopetest.NewKey(t)
	_, raw := tagged(t, sender, kindGiftWrap, [][]string{{"p", stranger.Public().Hex()[:62]}, {"p", recipient.Public().Hex()}})
	gift, err := newStored(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		by   envelope.SecretKey
		left int
	}{{stranger, 2}, {recipient, 1}, {sender, 1}} {
		kept := newStore(&Limits{MaxStored: 10, MaxStoredBytes: 1 << 20})
		kept.put(&gift.event, gift.raw, time.Unix(1, 0))
		request, text := tagged(t, c.by, kindDeletion, [][]string{{"e", fmt.Sprintf("%x", gift.event.ID)}})
		kept.put(request, text, time.Unix(1, 0))
		if n, _ := kept.size(); n != c.left {
			t.Errorf("%d events are left, want %d", n, c.left)
		}
	}
}

// What a relay forwards all the time takes no memory.
func TestMatchAllocatesNothing(t *testing.T) {
	x := newIndex(1 << 20)
	subscriptionFor(t, x, nip01.Filter{Kinds: []int{28333}, Tags: map[string][]string{"p": {"x"}}})
	e, _ := tagged(t, envelopetest.NewKey(t), 28333, [][]string{{"p", "x"}})
	m := matcher{index: x}
	if n := testing.AllocsPerRun(100, func() { m.match(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkMatch looks up what a relay forwards: an event to one key, among the
// subscriptions of a thousand others.
func BenchmarkMatch(b *testing.B) {
	sk := envelopetest.NewKey(b)
	x := newIndex(1 << 20)
	for n := range 1000 {
		subscriptionFor(b, x, nip01.Filter{Kinds: []int{28333}, Tags: map[string][]string{"p": {fmt.Sprintf("%064x", n)}}})
	}
	e, _ := tagged(b, sk, 28333, [][]string{{"p", fmt.Sprintf("%064x", 7)}})
	m := matcher{index: x}
	b.ReportAllocs()
	for b.Loop() {
		if len(m.match(e)) != 1 {
			b.Fatal("not found")
		}
	}
}
