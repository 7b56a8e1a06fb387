package box

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testPipes are both ends of a pipe.
func testPipes(t *testing.T) (near, far *pipe) {
	t.Helper()
	near, file, err := newPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(near.close)
	if far, err = openPipe(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(far.close)
	return near, far
}

func TestPipeCarriesFiles(t *testing.T) {
	near, far := testPipes(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := near.send(report{Ready: true, Notes: []string{"a note"}}, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := near.send(report{Ended: true, Code: 7}, nil); err != nil {
		t.Fatal(err)
	}
	var first, second report
	file, err := far.receive(&first)
	if err != nil || file == nil || !first.Ready || len(first.Notes) != 1 {
		t.Fatalf("got %+v, file %v, %v", first, file, err)
	}
	file.WriteString("through it")
	file.Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "through it" {
		t.Errorf("the file gives %q, %v", text, err)
	}
	if file, err := far.receive(&second); err != nil || file != nil || !second.Ended || second.Code != 7 {
		t.Errorf("got %+v, file %v, %v", second, file, err)
	}
}

func TestPipeEnds(t *testing.T) {
	near, far := testPipes(t)
	if err := near.send(report{Notes: []string{strings.Repeat("x", maxMessage)}}, nil); err == nil {
		t.Error("a message that is too long was sent")
	}
	if _, err := near.conn.Write([]byte("not JSON")); err != nil {
		t.Fatal(err)
	}
	if _, err := far.receive(&report{}); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("of a malformed message: %v", err)
	}
	near.close()
	if _, err := far.receive(&report{}); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := openPipe(f); err == nil {
		p.close()
		t.Error("what is no socket was taken for a pipe")
	}
}

func TestInitIsForExecOnly(t *testing.T) {
	if err := Init(0, "/bin/true", nil); err == nil || !strings.Contains(err.Error(), "nws-vpn exec") {
		t.Errorf("called by hand: %v", err)
	}
}

// What one end has said before it ended is heard, whatever it has not read.
func TestPipeEndsUnread(t *testing.T) {
	near, far := testPipes(t)
	for range 3 {
		if err := near.send(order{Signal: 2}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for code := range 3 {
		if err := far.send(report{Ended: true, Code: code}, nil); err != nil {
			t.Fatal(err)
		}
	}
	far.close()
	for code := range 3 {
		var r report
		if _, err := near.receive(&r); err != nil || !r.Ended || r.Code != code {
			t.Errorf("message %d: %+v, %v", code, r, err)
		}
	}
	if _, err := near.receive(new(report)); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}
