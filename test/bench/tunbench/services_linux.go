package tunbench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// services is the world that the programs connect to, in memory.
type services struct{}

func (services) DialContext(_ context.Context, _, address string) (net.Conn, error) {
	c := &service{closed: make(chan struct{})}
	switch address {
	case sinkAddr.String(), idleAddr.String():
	case sourceAddr.String():
		c.endless = true
	case webAddr.String():
		c.answer = httpAnswer
	default:
		return nil, fmt.Errorf("tunbench: no service at %s", address)
	}
	return c, nil
}

const (
	httpRequest = "GET / HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	bodySize    = 1 << 10
)

var (
	httpAnswer = []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		bodySize, bytes.Repeat([]byte("x"), bodySize)))
	block = make([]byte, 1<<20)
)

// service is a connection to one of them. It takes whatever is written, and
// sends without end, or one answer and the end once a request is complete, or
// nothing.
type service struct {
	endless bool
	answer  []byte

	asking  sync.Once
	asked   bytes.Buffer
	closing sync.Once
	closed  chan struct{}
	request chan struct{}
}

func (s *service) init() { s.asking.Do(func() { s.request = make(chan struct{}) }) }

func (s *service) Write(p []byte) (int, error) {
	s.init()
	if s.answer != nil && s.asked.Len() < len(httpRequest) {
		s.asked.Write(p)
		if bytes.HasSuffix(s.asked.Bytes(), []byte("\r\n\r\n")) {
			close(s.request)
		}
	}
	return len(p), nil
}

// WriteTo implements io.WriterTo, so that the copying is the stack's only.
func (s *service) WriteTo(w io.Writer) (total int64, err error) {
	s.init()
	for s.endless {
		n, err := w.Write(block)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	select {
	case <-s.request:
		n, err := w.Write(s.answer)
		return int64(n), err
	case <-s.closed:
		return 0, net.ErrClosed
	}
}

func (s *service) Read([]byte) (int, error) { return 0, os.ErrInvalid }

// CloseWrite ends what has no answer of its own.
func (s *service) CloseWrite() error {
	if s.answer == nil {
		return s.Close()
	}
	return nil
}

func (s *service) Close() error {
	s.closing.Do(func() { close(s.closed) })
	return nil
}

func (s *service) LocalAddr() net.Addr              { return nil }
func (s *service) RemoteAddr() net.Addr             { return nil }
func (s *service) SetDeadline(time.Time) error      { return nil }
func (s *service) SetReadDeadline(time.Time) error  { return nil }
func (s *service) SetWriteDeadline(time.Time) error { return nil }
