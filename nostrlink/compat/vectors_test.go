package compat

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// captured is testdata/nws-wire.json: traffic of the reference implementation,
// with throw-away keys.
type captured struct {
	Keys struct {
		ExitSK string `json:"exit_sk"`
	} `json:"keys"`
	Flows []capturedFlow `json:"flows"`
}

type capturedFlow struct {
	Name   string          `json:"name"`
	Frames []capturedFrame `json:"frames"`
	Direct []struct {
		Dir   string `json:"dir"`
		Bytes string `json:"bytes_hex"`
	} `json:"direct_tcp"`
}

type capturedFrame struct {
	Raw      string `json:"raw"`
	SignedBy string `json:"event_signed_by"`
	Inner    string `json:"inner_json"`
	EntrySK  string `json:"entry_sk"`
}

func (f *capturedFrame) byExit() bool { return strings.HasPrefix(f.SignedBy, "exit") }

// event returns the event in the frame, if it is one of NWS messages.
func (f *capturedFrame) event(t *testing.T) (ev envelope.Event, ok bool) {
	t.Helper()
	var parts []json.RawMessage
	if err := json.Unmarshal([]byte(f.Raw), &parts); err != nil || len(parts) < 2 {
		t.Fatalf("frame %.40q: %v", f.Raw, err)
	}
	if string(parts[0]) != `"EVENT"` {
		return ev, false
	}
	ev, err := envelope.ParseEvent(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	return ev, ev.Kind == envelope.KindNWS
}

// open returns the message in the frame, by the receiver's key.
func (f *capturedFrame) open(t *testing.T, exit envelope.SecretKey) Incoming {
	t.Helper()
	ev, ok := f.event(t)
	if !ok {
		t.Fatal("no message")
	}
	key := exit
	if f.byExit() {
		key = parseSecret(t, f.EntrySK)
	}
	in, err := NewKeys(key, 4).Open(&ev)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func parseSecret(t *testing.T, text string) envelope.SecretKey {
	t.Helper()
	key, err := envelope.ParseSecretKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func readCaptured(t *testing.T) (captured, envelope.SecretKey) {
	t.Helper()
	b, err := os.ReadFile("testdata/nws-wire.json")
	if err != nil {
		t.Fatal(err)
	}
	var c captured
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c, parseSecret(t, c.Keys.ExitSK)
}

// Every captured message opens, and is written here as it was written there.
func TestCapturedMessages(t *testing.T) {
	c, exit := readCaptured(t)
	messages := 0
	for _, flow := range c.Flows {
		for i, frame := range flow.Frames {
			if _, ok := frame.event(t); !ok {
				continue
			}
			messages++
			in := frame.open(t, exit)
			if got, err := wire.AppendMessage(nil, in.Message); err != nil || string(got) != frame.Inner {
				t.Errorf("%s, frame %d: %s, %v\nwant %s", flow.Name, i, got, err, frame.Inner)
			}
		}
	}
	if messages != 8 {
		t.Errorf("%d messages in the file, not 8", messages)
	}
}

// messages returns the flow's messages by who sent them.
func (flow *capturedFlow) messages(t *testing.T, exit envelope.SecretKey) (byEntry, byExit []capturedFrame) {
	t.Helper()
	for _, frame := range flow.Frames {
		if _, ok := frame.event(t); !ok {
			continue
		}
		if frame.byExit() {
			byExit = append(byExit, frame)
		} else {
			byEntry = append(byEntry, frame)
		}
	}
	return byEntry, byExit
}

// The captured entry meets our exit.
func TestReplayAsExit(t *testing.T) {
	c, key := readCaptured(t)
	for _, flow := range c.Flows {
		byEntry, byExit := flow.messages(t, key)
		if len(byEntry) == 0 || len(byExit) == 0 {
			continue
		}
		t.Run(flow.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				request := byEntry[0].open(t, key)
				sleepUntil(request.CreatedAt)
				sent := new(recorder)
				e := NewExit(sent, ExitOptions{})
				defer e.Close()
				var want string
				for _, frame := range byEntry {
					in := frame.open(t, key)
					want += string(in.Message.Data)
					e.Receive(in)
				}
				r := accept(t, e)
				if r.Address() != request.Message.Destination || r.Network() != "tcp" || r.Peer() != request.From {
					t.Errorf("request for %s %s by %v", r.Network(), r.Address(), r.Peer())
				}
				conn := acceptConn(t, r)
				if got := readFull(t, conn, len(want)); got != want {
					t.Errorf("read %q, want %q", got, want)
				}
				synctest.Wait()
				if n := len(sent.all()); n != 0 {
					t.Errorf("%d messages were sent unasked", n)
				}
				answer := byExit[0].open(t, key).Message
				write(t, conn, string(answer.Data))
				synctest.Wait()
				m := sent.message(t, 0)
				if m.Key != answer.Key || m.Type != answer.Type || string(m.Data) != string(answer.Data) || sent.to(0) != request.From {
					t.Errorf("answered %+v to %v, want %+v", m, sent.to(0), answer)
				}
			})
		})
	}
}

// Our entry meets the captured exit.
func TestReplayAsEntry(t *testing.T) {
	c, key := readCaptured(t)
	for _, flow := range c.Flows {
		byEntry, byExit := flow.messages(t, key)
		if len(byEntry) == 0 || len(byExit) == 0 {
			continue
		}
		t.Run(flow.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				request, data, answer := byEntry[0].open(t, key), byEntry[1].open(t, key), byExit[0].open(t, key)
				sent := new(recorder)
				e := NewEntry(key.Public(), sent, EntryOptions{})
				defer e.Close()
				e.newID = func() wire.UUID { return parseUUID(t, request.Message.Key) }
				address := request.Message.Destination
				if !strings.Contains(address, ":") {
					address += ":80"
				}
				conn, err := e.DialContext(context.Background(), "tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				write(t, conn, string(data.Message.Data))
				time.Sleep(time.Second)
				for i, want := range byEntry {
					if got := sent.text(i); got != want.Inner || sent.to(i) != key.Public() {
						t.Errorf("sent %s to %v\nwant %s", got, sent.to(i), want.Inner)
					}
				}
				e.Receive(answer)
				if got := readFull(t, conn, len(answer.Message.Data)); got != string(answer.Message.Data) {
					t.Errorf("read %q", got)
				}
			})
		})
	}
}

// reverseFlow is the captured CONNECTR with what passed on its connection.
func reverseFlow(t *testing.T) (flow capturedFlow, exit envelope.SecretKey, request Incoming, lines [3]string) {
	t.Helper()
	c, exit := readCaptured(t)
	for _, flow = range c.Flows {
		if len(flow.Direct) > 0 {
			break
		}
	}
	for i := range lines {
		b, err := hex.DecodeString(flow.Direct[i].Bytes)
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = string(b)
	}
	return flow, exit, flow.Frames[0].open(t, exit), lines
}

func TestReplayConnectBackAsExit(t *testing.T) {
	_, _, request, lines := reverseFlow(t)
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(request.CreatedAt)
		ours, theirs := net.Pipe()
		var dialed string
		e := NewExit(new(recorder), ExitOptions{AllowPrivate: true, DialBack: func(_ context.Context, network, address string) (net.Conn, error) {
			dialed = network + " " + address
			return ours, nil
		}})
		defer e.Close()
		e.Receive(request)
		r := accept(t, e)
		if r.Address() != request.Message.Destination {
			t.Errorf("request for %s", r.Address())
		}
		go func() {
			if got := readFull(t, theirs, len(lines[0])); got != lines[0] {
				t.Errorf("began with %q", got)
			}
			theirs.Write([]byte(lines[1]))
			theirs.Write([]byte(lines[2]))
		}()
		conn := acceptConn(t, r)
		if got := readFull(t, conn, len(lines[2])); got != lines[2] || dialed != "tcp 127.0.0.1:4443" {
			t.Errorf("dialed %s, read %q", dialed, got)
		}
		conn.Close()
	})
}

func TestReplayConnectBackAsEntry(t *testing.T) {
	flow, exit, request, lines := reverseFlow(t)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		reverse := NewReverseListener(l, request.Message.EntryPublicAddress)
		serve(t, reverse.Serve)
		sent := new(recorder)
		e := NewEntry(exit.Public(), sent, EntryOptions{Reverse: reverse})
		defer e.Close()
		e.newID = func() wire.UUID { return parseUUID(t, request.Message.Key) }
		sent.onSend = func(envelope.PublicKey, string) error {
			go func() {
				conn := l.dial()
				write(t, conn, lines[0])
				if got := readFull(t, conn, 1); got != lines[1] {
					t.Errorf("answered %q", got)
				}
				if got := readFull(t, conn, len(lines[2])); got != lines[2] {
					t.Errorf("read %q", got)
				}
				conn.Close()
			}()
			return nil
		}
		conn, err := e.DialContext(context.Background(), "tcp", request.Message.Destination+":80")
		if err != nil {
			t.Fatal(err)
		}
		if got := sent.text(0); got != flow.Frames[0].Inner {
			t.Errorf("sent %s\nwant %s", got, flow.Frames[0].Inner)
		}
		write(t, conn, lines[2])
		conn.Close()
	})
}
