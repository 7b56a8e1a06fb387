package tlssite

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
)

func TestPipe(t *testing.T) {
	a, b := newPipe()
	sent := bytes.Repeat([]byte("abcdefg"), 10_000)
	for what, read := range map[string]func(*end) ([]byte, error){
		"Read": func(e *end) ([]byte, error) {
			var got bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{e}, make([]byte, 100))
			return got.Bytes(), err
		},
		"WriteTo": func(e *end) ([]byte, error) {
			var got bytes.Buffer
			_, err := e.WriteTo(&got)
			return got.Bytes(), err
		},
	} {
		var writing sync.WaitGroup
		writing.Go(func() {
			if n, err := a.Write(sent); n != len(sent) || err != nil {
				t.Errorf("%s: wrote %d, %v", what, n, err)
			}
			a.CloseWrite()
			if _, err := a.Write(sent); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: wrote after the end: %v", what, err)
			}
		})
		got, err := read(b)
		writing.Wait()
		if !bytes.Equal(got, sent) || err != nil {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
		a, b = b, a // the other direction is still open
	}
	a, b = newPipe()
	b.Close()
	if _, err := a.Write(sent); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("wrote to one who has gone: %v", err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read from one who has gone: %d, %v", n, err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
}

func TestPipeIsReset(t *testing.T) {
	cause := errors.New("broken")
	a, b := newPipe()
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := b.Read(make([]byte, 1)); err != cause {
			t.Errorf("read %v", err)
		}
	})
	waiting.Go(func() {
		if _, err := b.Write([]byte("x")); err != cause {
			t.Errorf("wrote %v", err)
		}
	})
	a.Abort(cause)
	waiting.Wait()
	b.Close()
	a.Close()
}
