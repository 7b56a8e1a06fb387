package envelope

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"testing"
)

// TestOpenerKeepsOrder opens many payloads of several lengths, good ones and
// others between.
func TestOpenerKeepsOrder(t *testing.T) {
	key := [32]byte{7}
	const n = 500
	var (
		got  []uint32
		all  = make(chan struct{})
		size = func(i int) int { return 4 + i*i%5000 }
	)
	o := NewOpener(conversationKey(&key), func(plain []byte) {
		i := binary.BigEndian.Uint32(plain)
		if rest := plain[4:]; len(plain) != size(int(i)) || !bytes.Equal(rest, bytes.Repeat([]byte{byte(i)}, len(rest))) {
			t.Errorf("payload %d is not as it was sealed", i)
		}
		if got = append(got, i); len(got) == n {
			close(all)
		}
	})
	defer o.Close()
	for i := range n {
		plain := bytes.Repeat([]byte{byte(i)}, size(i))
		binary.BigEndian.PutUint32(plain, uint32(i))
		text := []byte(encryptToText(t, plain, key, [32]byte{byte(i), byte(i >> 8)}))
		bad := bytes.Clone(text)
		bad[len(bad)/2] ^= 1 // to another character of the alphabet, or none
		_ = o.Open(bad)
		if err := o.Open([]byte("not a payload")); err == nil {
			t.Fatal("no error for what is not a payload")
		}
		if err := o.Open(text); err != nil {
			t.Fatal(err)
		}
		clear(text) // it was borrowed
	}
	<-all
	for i, number := range got {
		if int(number) != i {
			t.Fatalf("payload %d came in the place of %d", number, i)
		}
	}
}

// TestOpenerCloses closes an Opener whose deliver is stuck while others wait
// for room, and once more from deliver.
func TestOpenerCloses(t *testing.T) {
	key := [32]byte{7}
	text := []byte(encryptToText(t, []byte(strings.Repeat("x", 100)), key, [32]byte{1}))
	stuck, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var o *Opener
	made := make(chan struct{})
	o = NewOpener(conversationKey(&key), func([]byte) {
		<-made
		once.Do(func() { close(stuck) })
		<-release
		o.Close()
	})
	close(made)
	var senders sync.WaitGroup
	for range 3 {
		senders.Go(func() {
			for range 2 * openerQueue {
				if err := o.Open(text); err != nil {
					t.Error(err)
				}
			}
		})
	}
	<-stuck
	o.Close()
	senders.Wait()
	close(release)
}

func BenchmarkOpener(b *testing.B) {
	p := newPair(b, MaxPlaintext)
	ev, err := ParseEvent(p.event)
	if err != nil {
		b.Fatal(err)
	}
	left := make(chan struct{}, b.N+1)
	o := NewOpener(p.key, func([]byte) { left <- struct{}{} })
	defer o.Close()
	b.SetBytes(MaxPlaintext)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := o.Open(ev.Content); err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		<-left
	}
}
