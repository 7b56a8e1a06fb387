package relayd

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// TestDiskThatFails: while the disk takes nothing, nothing is promised, not even
// what is in memory already; when it is closed, those who wait are told.
func TestDiskThatFails(t *testing.T) {
	d, err := openDisk(filepath.Join(t.TempDir(), "relay.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(&Limits{MaxStored: 10, MaxStoredBytes: 1 << 20})
	s.disk = d
	sk := envelopetest.NewKey(t)
	put := func(n int) (outcome, uint64) {
		raw, _ := envelopetest.Sign(t, sk, envelope.Template{Kind: 1, CreatedAt: time.Unix(int64(n), 0), Content: fmt.Append(nil, n)})
		return s.put(envelopetest.Parse(t, raw), raw, time.Unix(0, 0))
	}
	_, ticket := put(1)
	if err := d.wait(ticket); err != nil {
		t.Error(err)
	}
	if err := d.db.Close(); err != nil { // every commit fails from here on
		t.Fatal(err)
	}
	_, ticket = put(2)
	if err := d.wait(ticket); err == nil {
		t.Error("an event was promised that is not on disk")
	}
	if what, ticket := put(2); what != duplicate || d.wait(ticket) == nil {
		t.Error("the same event was promised when it came again")
	}
	for n := 3; n < maxPending; n++ {
		d.write([]change{{place: uint64(n)}})
	}
	for !d.full() {
		d.write([]change{{place: 1}})
	}
	if what, _ := put(3); what != unkept {
		t.Errorf("a store whose disk is behind by %d changes takes more: %v", maxPending, what)
	}
	d.close()
	if err := d.wait(d.write(nil)); err == nil {
		t.Error("a closed store promises")
	}
}

// What waits for the disk is bounded in bytes too, until it is there.
func TestDiskIsFull(t *testing.T) {
	large := []change{{1, make([]byte, maxPendingBytes/2)}, {2, make([]byte, maxPendingBytes/2)}}
	stuck := &disk{wake: make(chan struct{}, 1)}
	for n, c := range large {
		if stuck.full() {
			t.Errorf("full with %d changes", n)
		}
		stuck.write([]change{c})
	}
	if !stuck.full() {
		t.Errorf("not full with %d bytes", stuck.bytes)
	}
	d, err := openDisk(filepath.Join(t.TempDir(), "relay.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := d.wait(d.write([]change{{1, make([]byte, 1000)}, {place: 2}})); err != nil || d.full() || d.bytes != 0 {
		t.Errorf("%d bytes wait after they were written: %v", d.bytes, err)
	}
}
