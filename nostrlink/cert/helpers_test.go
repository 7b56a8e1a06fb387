package cert

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func signed(t testing.TB, key envelope.SecretKey, at time.Time, content []byte, tags ...[]string) *envelope.Event {
	t.Helper()
	raw, _ := envelopetest.Sign(t, key, envelope.Template{Kind: envelope.KindCertificate, CreatedAt: at, Tags: tags, Content: content})
	return envelopetest.Parse(t, raw)
}

func newKeeper(t testing.TB, key envelope.SecretKey, now time.Time, hosts ...string) *Keeper {
	t.Helper()
	k, err := OpenKeeper(filepath.Join(t.TempDir(), "cert.pem"), key.Public(), hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// attested is what a reader finds of a keeper's certificate.
func attested(t testing.TB, k *Keeper, key envelope.SecretKey, now time.Time) *Attestation {
	t.Helper()
	raw, _, err := Append(nil, key, now, k.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	a, err := Verify(envelopetest.Parse(t, raw), key.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// echo accepts TLS connections on loopback and says hello to each.
func echo(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// greet connects and returns what the server said.
func greet(address string, config *tls.Config) (string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", address, config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	text, err := io.ReadAll(conn)
	return string(text), err
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}
