package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// vector is one entry of testdata/frames.json: a frame as bytes and as what it
// means, for other implementations to check themselves against.
type vector struct {
	Name  string `json:"name"`
	Bytes string `json:"bytes"` // hexadecimal
	Frame any    `json:"frame"`
}

var frames = []struct {
	name  string
	frame Frame
}{
	{"ack of packet 0", Frame{Type: FrameAck, Ack: Ack{Ranges: []AckRange{{0, 0}}}}},
	{"ack of one range", Frame{Type: FrameAck, Ack: Ack{Delay: 15000, Ranges: []AckRange{{3, 1000}}}}},
	{"ack of three ranges", Frame{Type: FrameAck, Ack: Ack{Delay: 1, Ranges: []AckRange{{90, 99}, {50, 87}, {0, 0}}}}},
	{"open tcp", Frame{Type: FrameOpen, Open: Open{ID: 1, UUID: [16]byte{0x3b, 0x1f, 9, 0xa8, 0x2b, 0x10, 0x4d, 0xaa, 0x88, 0xc, 0x2a, 0x39, 0x2e, 0x78, 0x1f, 9}, Network: NetworkTCP, Window: 1 << 20, Destination: []byte("example.org:80"), Data: []byte("GET / HTTP/1.1\r\n\r\n")}}},
	{"open udp", Frame{Type: FrameOpen, Open: Open{ID: 16384, Network: NetworkUDP, Destination: []byte("[2001:db8::1]:53"), Data: []byte{}}}},
	{"open dns", Frame{Type: FrameOpen, Open: Open{ID: 64, Network: NetworkDNS, Window: 65536, Destination: []byte{}, Data: []byte{}}}},
	{"opened", Frame{Type: FrameOpened, Opened: Opened{ID: 1, Window: 1 << 20}}},
	{"refuse", Frame{Type: FrameRefuse, Refuse: Refuse{ID: 2, Received: 300, Code: CodeRefused, Text: []byte("connection refused")}}},
	{"data", Frame{Type: FrameData, Data: Data{ID: 1, Offset: 70000, Data: []byte("hello")}}},
	{"data and fin", Frame{Type: FrameDataFin, Data: Data{ID: 1, Offset: 1 << 40, Fin: true, Data: []byte{}}}},
	{"max data of a stream", Frame{Type: FrameMaxData, MaxData: MaxData{ID: 7, Limit: 1 << 30}}},
	{"max data of the session", Frame{Type: FrameMaxData, MaxData: MaxData{Limit: 1<<53 - 1}}},
	{"reset", Frame{Type: FrameReset, Reset: Reset{ID: 5, Final: 12345, Code: CodeReset, Text: []byte{}}}},
	{"stop", Frame{Type: FrameStop, Stop: Stop{ID: 5, Code: CodeCancelled}}},
	{"datagram", Frame{Type: FrameDatagram, Datagram: Datagram{ID: 9, Data: []byte{1, 2, 3}}}},
	{"ping", Frame{Type: FramePing}},
	{"open ping", Frame{Type: FrameOpen, Open: Open{ID: 3, Network: NetworkPing, Destination: []byte("example.org"), Data: []byte{0, 1, 'h', 'i'}}}},
	{"goaway", Frame{Type: FrameGoAway}},
	{"close", Frame{Type: FrameClose, Close: Close{Code: CodeGoingAway, Text: []byte("bye")}}},
}

// meaning gives a frame as JSON shows it.
func meaning(f *Frame) map[string]any {
	v := map[FrameType]any{
		FrameAck: f.Ack, FrameOpen: f.Open, FrameOpened: f.Opened, FrameRefuse: f.Refuse, FrameData: f.Data,
		FrameDataFin: f.Data, FrameMaxData: f.MaxData, FrameReset: f.Reset, FrameStop: f.Stop,
		FrameDatagram: f.Datagram, FramePing: struct{}{}, FrameClose: f.Close, FrameGoAway: struct{}{},
	}[f.Type]
	m := map[string]any{}
	r := reflect.ValueOf(v)
	for i := range r.NumField() {
		name, field := strings.ToLower(r.Type().Field(i).Name), r.Field(i)
		switch x := field.Interface().(type) {
		case []byte:
			m[name] = hex.EncodeToString(x)
		case [16]byte:
			m[name] = hex.EncodeToString(x[:])
		case []AckRange:
			var l [][2]uint64
			for _, r := range x {
				l = append(l, [2]uint64{r.Smallest, r.Largest})
			}
			m[name] = l
		default:
			m[name] = x
		}
	}
	return m
}

func TestFrameVectors(t *testing.T) {
	var now []vector
	for _, f := range frames {
		now = append(now, vector{f.name, hex.EncodeToString(f.frame.Append(nil)), meaning(&f.frame)})
	}
	path := filepath.Join("testdata", "frames.json")
	if *update {
		b, _ := json.MarshalIndent(now, "", " ")
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var golden []vector
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden) != len(now) {
		t.Fatalf("%d vectors in the file, %d here", len(golden), len(now))
	}
	for i, v := range golden {
		if v.Name != now[i].Name || v.Bytes != now[i].Bytes {
			t.Errorf("%s: written as %s, golden is %s %s", now[i].Name, now[i].Bytes, v.Name, v.Bytes)
		}
		raw, _ := hex.DecodeString(v.Bytes)
		var f Frame
		rest, err := ParseFrame(&f, raw)
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: %v, %d bytes left", v.Name, err, len(rest))
			continue
		}
		got, _ := json.Marshal(meaning(&f))
		want, _ := json.Marshal(v.Frame)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: read as %s, golden is %s", v.Name, got, want)
		}
	}
}

// Every frame, cut off anywhere, is refused.
func TestFrameCutOff(t *testing.T) {
	for _, v := range frames {
		whole := v.frame.Append(nil)
		for n := range whole {
			var f Frame
			if _, err := ParseFrame(&f, whole[:n]); err == nil {
				t.Errorf("%s cut to %d of %d bytes was taken", v.name, n, len(whole))
			}
		}
	}
}

func TestFrameRefused(t *testing.T) {
	for _, test := range []struct{ name, bytes string }{
		{"type 0", "00"},
		{"unknown type", "0e"},
		{"number not in its shortest form", "074001400005"},
		{"ack range below zero", "0105000006"},
		{"ack gap below zero", "01050001000400"},
		{"ack with 33 ranges", "01ff" + strings.Repeat("ff", 7) + "0020" + strings.Repeat("00", 80)},
		{"stream 0", "050000000"},
		{"open of stream 0", "0200" + strings.Repeat("00", 16) + "01000000"},
		{"unknown network", "0201" + strings.Repeat("00", 16) + "05000000"},
		{"destination too long", "0201" + strings.Repeat("00", 16) + "01004201" + strings.Repeat("61", 513) + "00"},
		{"text too long", "0c004101" + strings.Repeat("61", 257)},
		{"code above 65535", "0901" + "80010000"},
		{"offset beyond 2^62", "0501" + "ffffffffffffffff" + "0161"},
		{"data longer than the packet", "050100" + "0261"},
	} {
		raw, _ := hex.DecodeString(test.bytes)
		var f Frame
		if _, err := ParseFrame(&f, raw); err == nil {
			t.Errorf("%s: taken as %+v", test.name, f)
		}
	}
}

func TestRoom(t *testing.T) {
	for room := range 70000 {
		n := DataRoom(room, 100, 1<<20)
		if n < 0 {
			if room >= 8 {
				t.Fatalf("no room for data in %d bytes", room)
			}
			continue
		}
		if n > 200 && room%97 != 0 { // enough of them
			continue
		}
		f := Data{ID: 100, Offset: 1 << 20, Data: make([]byte, n)}
		if l := len(f.Append(nil)); l > room || l < room-2 {
			t.Fatalf("%d bytes of data make %d, room was %d", n, l, room)
		}
		o := Open{ID: 9, Network: NetworkTCP, Destination: []byte("a:1")}
		if n := o.DataRoom(room); n >= 0 {
			o.Data = make([]byte, n)
			if l := o.Len(); l != len(o.Append(nil)) || l > room || l < room-2 {
				t.Fatalf("OPEN with %d bytes of data makes %d, room was %d", n, l, room)
			}
		}
		d := Datagram{ID: 100, Data: make([]byte, max(0, DatagramRoom(room, 100)))}
		if l := len(d.Append(nil)); l > room && room > 3 {
			t.Fatalf("DATAGRAM makes %d, room was %d", l, room)
		}
	}
}

func TestHeader(t *testing.T) {
	for _, number := range []uint64{0, 63, 64, 1 << 14, 1 << 30, maxVarint} {
		for _, dir := range []Direction{FromDialer, FromListener} {
			h := Header{Direction: dir, Session: [16]byte{1, 2, 3}, Number: number}
			b := AppendHeader(nil, h)
			if len(b) != HeaderLen(number) {
				t.Errorf("header of %d bytes, HeaderLen says %d", len(b), HeaderLen(number))
			}
			got, rest, err := ParseHeader(append(b, 0x0b))
			if err != nil || got != h || len(rest) != 1 {
				t.Errorf("%+v read as %+v, %v", h, got, err)
			}
		}
	}
	good := AppendHeader(nil, Header{Number: 5})
	change := func(i int, c byte) []byte { b := bytes.Clone(good); b[i] = c; return b }
	for _, test := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrMagic},
		{"json", change(0, '{'), ErrMagic},
		{"another version", change(1, 2), ErrVersion},
		{"magic alone", good[:1], ErrVersion},
		{"unknown flag", change(2, 2), ErrHeader},
		{"cut in the session id", good[:10], ErrHeader},
		{"no number", good[:19], ErrHeader},
		{"long number", append(bytes.Clone(good[:19]), 0x40, 5), ErrHeader},
	} {
		if _, _, err := ParseHeader(test.b); err != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// FuzzFrames holds that parsing never panics and that what parses is written
// again as the same bytes.
func FuzzFrames(f *testing.F) {
	var all []byte
	for _, v := range frames {
		f.Add(v.frame.Append(nil))
		all = v.frame.Append(all)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame Frame
		for len(b) > 0 {
			rest, err := ParseFrame(&frame, b)
			if err != nil {
				return
			}
			if again := frame.Append(nil); !bytes.Equal(again, b[:len(b)-len(rest)]) {
				t.Fatalf("%x was read as %+v, which is written %x", b[:len(b)-len(rest)], frame, again)
			}
			b = rest
		}
	})
}

// FuzzHeader is the same for packet headers.
func FuzzHeader(f *testing.F) {
	f.Add(AppendHeader(nil, Header{Direction: FromListener, Number: 1 << 20}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := ParseHeader(b)
		if err != nil {
			return
		}
		if again := append(AppendHeader(nil, h), rest...); !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %+v, which is written %x", b, h, again)
		}
	})
}
