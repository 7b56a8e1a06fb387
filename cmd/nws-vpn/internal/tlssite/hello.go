package tlssite

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
)

// errPlain means that a connection does not begin with TLS.
var errPlain = errors.New("tlssite: no TLS")

// readHello reads the beginning of a connection, until it is clear which host a
// TLS client asks for; asked may be empty. read is all that was read of conn, in
// any case. The error is errPlain for what is no TLS.
func readHello(ctx context.Context, conn net.Conn) (asked string, read []byte, err error) {
	seen := errors.New("seen")
	tap := &tap{Conn: conn}
	err = tls.Server(tap, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			asked = hello.ServerName
			return nil, seen
		},
	}).HandshakeContext(ctx)
	var plain tls.RecordHeaderError
	switch {
	case errors.Is(err, seen):
		err = nil
	case errors.As(err, &plain):
		err = errPlain
	}
	return asked, tap.read.Bytes(), err
}

// tap notes what is read of a connection, and says nothing on it.
type tap struct {
	net.Conn
	read bytes.Buffer
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.read.Write(p[:n])
	return n, err
}

func (t *tap) Write(p []byte) (int, error) { return len(p), nil }

// begun is an end of which something has been read already, and is read again.
type begun struct {
	*end
	first []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		return b.end.Read(p)
	}
	n := copy(p, b.first)
	if b.first = b.first[n:]; len(b.first) == 0 {
		b.first = nil
	}
	return n, nil
}

// WriteTo implements io.WriterTo without a buffer.
func (b *begun) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b.first)
	b.first = nil
	if err != nil {
		return int64(n), err
	}
	rest, err := b.end.WriteTo(w)
	return int64(n) + rest, err
}
