package tun

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// read reads one packet.
func read(t *testing.T, d Device) ([]byte, Header) {
	t.Helper()
	type result struct {
		packet []byte
		h      Header
		err    error
	}
	got := make(chan result, 1)
	go func() {
		// As uneven parts as a reader may choose.
		parts := [][]byte{make([]byte, 1), make([]byte, 100), {}, make([]byte, MaxPacket)}
		n, h, err := d.ReadPacket(parts)
		got <- result{bytes.Join(parts, nil)[:n], h, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.packet, r.h
	case <-time.After(patience):
		t.Fatal("no packet came")
		panic("unreachable")
	}
}

func TestPipeCarriesPackets(t *testing.T) {
	a, b := Pipe(1500)
	defer a.Close()
	defer b.Close()
	h := Header{Segmentation: SegmentTCPv4, HeaderLength: 40, SegmentSize: 1460, NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16}
	large := bytes.Repeat([]byte("large"), 10000)
	for _, way := range [][2]Device{{a, b}, {b, a}} {
		if err := way[0].WritePacket(Header{}, [][]byte{[]byte("sm"), nil, []byte("all")}); err != nil {
			t.Fatal(err)
		}
		if err := way[0].WritePacket(h, [][]byte{large[:50], large[50:]}); err != nil {
			t.Fatal(err)
		}
		if got, gotH := read(t, way[1]); string(got) != "small" || gotH != (Header{}) {
			t.Errorf("got %q %+v", got, gotH)
		}
		if got, gotH := read(t, way[1]); !bytes.Equal(got, large) || gotH != h {
			t.Errorf("got %d bytes, %+v", len(got), gotH)
		}
	}
}

func TestPipeRefusesAndDrops(t *testing.T) {
	a, b := Pipe(1500)
	defer a.Close()
	defer b.Close()
	if err := a.WritePacket(Header{}, [][]byte{make([]byte, 1501)}); err == nil {
		t.Error("a packet longer than the MTU was taken")
	}
	if err := a.WritePacket(Header{Segmentation: SegmentTCPv6}, [][]byte{make([]byte, MaxPacket+1)}); err == nil {
		t.Error("a packet longer than any was taken")
	}
	// Nobody reads: writing must not block.
	for i := range pipeDepth + 10 {
		if err := a.WritePacket(Header{}, [][]byte{{byte(i), byte(i >> 8)}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range pipeDepth {
		if got, _ := read(t, b); int(got[0])+int(got[1])<<8 != i {
			t.Fatalf("packet %d is %v", i, got)
		}
	}
	// A reader with too little room loses that packet only.
	a.WritePacket(Header{}, [][]byte{[]byte("too long")})
	a.WritePacket(Header{}, [][]byte{[]byte("next")})
	if _, _, err := b.ReadPacket([][]byte{make([]byte, 3)}); !errors.Is(err, ErrTooShort) {
		t.Errorf("read into 3 bytes: %v", err)
	}
	if got, _ := read(t, b); string(got) != "next" {
		t.Errorf("got %q", got)
	}
}

func TestPipeClose(t *testing.T) {
	a, b := Pipe(1500)
	defer b.Close()
	testClose(t, a)
	if err := b.WritePacket(Header{}, [][]byte{[]byte("x")}); err != nil {
		t.Errorf("write to the closed end: %v", err)
	}
}

// testClose checks that Close ends calls, and may be repeated.
func testClose(t *testing.T, d Device) {
	t.Helper()
	err := make(chan error, 1)
	go func() {
		for {
			_, _, e := d.ReadPacket([][]byte{make([]byte, MaxPacket+1)})
			if e != nil {
				err <- e
				return
			}
		}
	}()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	select {
	case err := <-err:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("blocked read: %v, want closed", err)
		}
	case <-time.After(patience):
		t.Fatal("read goes on after Close")
	}
	if _, _, err := d.ReadPacket([][]byte{make([]byte, 100)}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read: %v, want closed", err)
	}
	if err := d.WritePacket(Header{}, [][]byte{make([]byte, 100)}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write: %v, want closed", err)
	}
}

func TestHeaderAsTheKernelSeesIt(t *testing.T) {
	if native := []byte{1, 0}; !bytes.Equal((Header{HeaderLength: 1}).appendTo(nil)[2:4], native) {
		t.Skip("this machine is big-endian")
	}
	for _, test := range []struct {
		h    Header
		want []byte
	}{
		{Header{}, make([]byte, 10)},
		{Header{ChecksumValid: true}, []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		{
			Header{Segmentation: SegmentTCPv4, HeaderLength: 52, SegmentSize: 1448, NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16},
			[]byte{1, 1, 52, 0, 0xa8, 5, 20, 0, 16, 0},
		},
		{
			Header{Segmentation: SegmentTCPv6, HeaderLength: 72, SegmentSize: 1428, NeedsChecksum: true, ChecksumStart: 40, ChecksumOffset: 16},
			[]byte{1, 4, 72, 0, 0x94, 5, 40, 0, 16, 0},
		},
	} {
		got := test.h.appendTo(nil)
		if !bytes.Equal(got, test.want) {
			t.Errorf("%+v is %x, want %x", test.h, got, test.want)
		}
		if back, err := parseHeader(got); err != nil || back != test.h {
			t.Errorf("%x is %+v, %v", got, back, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(make([]byte, headerSize))
	f.Add([]byte{1, 1, 52, 0, 0xa8, 5, 20, 0, 16, 0})
	f.Add([]byte{3, 4 | segmentECN, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{0, 3, 0, 0, 0, 0, 0, 0, 0, 0}) // UDP: not asked for
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		back, err := parseHeader(h.appendTo(nil))
		if err != nil || back != h {
			t.Errorf("%x is %+v, and that again %+v, %v", b, h, back, err)
		}
	})
}
