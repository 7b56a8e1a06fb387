package splice

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http/httptest"
	"syscall"
	"testing"
)

// tlsPair returns both ends of a TLS connection, and what is below the second.
func tlsPair(t *testing.T) (client, server *tls.Conn) {
	t.Helper()
	web := httptest.NewTLSServer(nil)
	web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	a, b := tcpPair(t)
	client = tls.Client(a, &tls.Config{RootCAs: roots, ServerName: "example.com"})
	server = tls.Server(b, &tls.Config{Certificates: web.TLS.Certificates})
	done := make(chan error)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// Records of every size arrive whole and in order, and so does each end.
func TestJoinOverTLS(t *testing.T) {
	client, server := tlsPair(t)
	near, far := tcpPair(t)
	done := make(chan error)
	go func() {
		_, err := Join(OverTLS(server), near)
		done <- err
	}()
	var sent bytes.Buffer
	sizes := []int{1, tlsWaiting - 1, tlsWaiting, tlsWaiting + 1, 3, tlsRecord, tlsRecord + 1, tlsWaiting, 100_000, 2 * tlsWaiting, 1}
	go func() {
		for i, size := range sizes {
			client.Write(bytes.Repeat([]byte{byte(i)}, size))
		}
		client.CloseWrite()
	}()
	for i, size := range sizes {
		sent.Write(bytes.Repeat([]byte{byte(i)}, size))
	}
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, sent.Bytes()) {
		t.Errorf("%d of %d bytes came, %v", len(got), sent.Len(), err)
	}
	if _, err := far.Write([]byte("answer")); err != nil {
		t.Error(err)
	}
	far.CloseWrite()
	if answer, err := io.ReadAll(client); err != nil || string(answer) != "answer" {
		t.Errorf("after the half-close came %q, %v", answer, err)
	}
	client.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAbortOverTLSIsNoFarewell(t *testing.T) {
	client, server := tlsPair(t)
	Abort(OverTLS(server), errors.New("broken"))
	if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v, want a reset", err)
	}
}
