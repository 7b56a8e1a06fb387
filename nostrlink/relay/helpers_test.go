package relay_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const recipient = "00000000000000000000000000000000000000000000000000000000000000aa"

// fakeEvent is an event as far as the hostile relay looks: its id is unique and
// its signature is not one.
func fakeEvent(n, size int) (raw []byte, id [32]byte) {
	id = sha256.Sum256(fmt.Append(nil, n))
	return fmt.Appendf(nil, `{"id":"%x","pubkey":"%s","created_at":1700000000,"kind":28333,"tags":[["p","%s"]],"content":"%d %s","sig":"%s"}`,
		id, recipient, recipient, n, strings.Repeat("x", size), strings.Repeat("0", 128)), id
}

// number is what fakeEvent was told.
func number(t *testing.T, raw []byte) int {
	t.Helper()
	var n int
	_, content, _ := strings.Cut(string(raw), `"content":"`)
	if _, err := fmt.Sscanf(content, "%d", &n); err != nil {
		t.Errorf("not one of our events: %.80s", raw)
	}
	return n
}

func forRecipient() []relay.Filter {
	return []relay.Filter{{Kinds: []int{28333}, Tags: map[string][]string{"p": {recipient}}, Limit: new(int)}}
}

func dial(t *testing.T, r *relaytest.Relay, opts relay.Options) *relay.Conn {
	t.Helper()
	opts.DialContext = r.DialContext
	c, err := relay.Dial(context.Background(), r.URL(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// verdicts collects what onOK is told.
type verdicts struct {
	mu   sync.Mutex
	got  []string
	more chan struct{}
}

func newVerdicts() *verdicts { return &verdicts{more: make(chan struct{}, 1000)} }

func (v *verdicts) onOK(accepted bool, reason string) {
	v.mu.Lock()
	v.got = append(v.got, fmt.Sprint(accepted, " ", reason))
	v.mu.Unlock()
	v.more <- struct{}{}
}

func (v *verdicts) await(n int) []string {
	for range n {
		<-v.more
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.got
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not mention %q", err, p)
		}
	}
}
