package tlssite

import (
	"bytes"
	"context"
	"crypto/tls"
	"testing"
)

// hello is the beginning of a TLS connection to a host.
func hello(f *testing.F, host string) []byte {
	f.Helper()
	program, here := newPipe()
	go func() {
		tls.Client(program, &tls.Config{ServerName: host, InsecureSkipVerify: true}).Handshake()
		program.Close()
	}()
	asked, read, err := readHello(f.Context(), here)
	here.Close()
	if asked != host || err != nil {
		f.Fatalf("a connection to %q is read as one to %q, %v", host, asked, err)
	}
	return bytes.Clone(read)
}

// Whatever a program sends, nothing of it is lost.
func FuzzReadHello(f *testing.F) {
	whole := hello(f, "www.example.nostr")
	for _, seed := range [][]byte{nil, whole, whole[:60], hello(f, ""), []byte("GET / HTTP/1.0\r\n\r\n"), {22, 3, 1, 0, 0}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		program, here := newPipe()
		go func() {
			program.Write(sent)
			program.CloseWrite()
		}()
		_, read, err := readHello(context.Background(), here)
		if !bytes.HasPrefix(sent, read) {
			t.Errorf("read %x of %x, %v", read, sent, err)
		}
		here.Close()
		program.Close()
	})
}
