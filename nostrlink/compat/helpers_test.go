package compat

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Sender that keeps what is sent.
type recorder struct {
	onSend func(to envelope.PublicKey, text string) error // or nil
	delay  time.Duration

	mu   sync.Mutex
	sent []record
}

type record struct {
	to   envelope.PublicKey
	text string
	at   time.Time
}

func (r *recorder) Send(ctx context.Context, to envelope.PublicKey, plaintext []byte) error {
	r.mu.Lock()
	r.sent = append(r.sent, record{to, string(plaintext), time.Now()})
	r.mu.Unlock()
	if r.delay > 0 {
		sleep(ctx, r.delay)
	}
	if r.onSend != nil {
		return r.onSend(to, string(plaintext))
	}
	return ctx.Err()
}

func (r *recorder) all() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]record(nil), r.sent...)
}

func (r *recorder) at(i int) record {
	if all := r.all(); i < len(all) {
		return all[i]
	}
	return record{}
}

func (r *recorder) text(i int) string           { return r.at(i).text }
func (r *recorder) to(i int) envelope.PublicKey { return r.at(i).to }

func (r *recorder) message(t *testing.T, i int) *wire.Message {
	t.Helper()
	m, err := wire.ParseMessage([]byte(r.text(i)))
	if err != nil {
		t.Fatalf("message %d: %v", i, err)
	}
	return m
}

func newID() (id [32]byte) {
	rand.Read(id[:])
	return id
}

// incoming is a message of an event of its own, made now.
func incoming(from envelope.PublicKey, id wire.UUID, kind, data string) Incoming {
	return Incoming{From: from, ID: newID(), CreatedAt: time.Now().Unix(), Message: &wire.Message{
		Key: id.String(), Type: kind, Data: []byte(data), Destination: "example.org:80",
	}}
}

func accept(t *testing.T, e *Exit) *Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := e.Accept(ctx)
	if err != nil {
		t.Fatalf("no request: %v", err)
	}
	return r
}

func acceptConn(t *testing.T, r *Request) net.Conn {
	t.Helper()
	conn, err := r.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func readFull(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	m, err := io.ReadFull(r, b)
	if err != nil {
		t.Errorf("read %d of %d bytes: %v", m, n, err)
	}
	return string(b[:m])
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if n, err := io.WriteString(w, text); err != nil {
		t.Errorf("wrote %d of %d bytes: %v", n, len(text), err)
	}
}

func parseUUID(t *testing.T, text string) wire.UUID {
	t.Helper()
	id, err := wire.ParseUUID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func sleepUntil(seconds int64) { time.Sleep(time.Until(time.Unix(seconds, 0))) }

// serve runs a server until the test ends.
func serve(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// pipeListener is a net.Listener of net.Pipes.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
	case <-l.done:
		theirs.Close()
	}
	return ours
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return addr("pipe") }
