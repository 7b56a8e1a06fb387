package relayd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// conformanceCase is a conversation and what NIP-01 has a relay answer, in short:
// OK+ and OK- for verdicts, the names of events that came, EOSE, CLOSED, COUNT.
// What other relays answer instead is beside it, with the reason in a comment.
type conformanceCase struct {
	name         string
	say          []string // verbs and names, see conversation
	want         string
	khatru, rely string // "" for as we do, "-" for not asked
}

// In what is said, {name} is an event, {name.id} its id, {A} and {B} the keys of
// the authors, {t+1} a time. A message that begins with 2: is of a second client.
func conformanceCases() []conformanceCase {
	const live = `["REQ","live",{"kinds":[1,20001,30001,65535]}]`
	return []conformanceCase{
		{"an event is kept", []string{`["EVENT",{note1}]`, `["REQ","s",{}]`}, "OK+ note1 EOSE", "", "-"},
		{"an event that is known is accepted again", []string{`["EVENT",{note1}]`, `["EVENT",{note1}]`, `["REQ","s",{}]`}, "OK+ OK+ note1 EOSE", "", "-"},
		{"newest first", []string{`["EVENT",{note1}]`, `["EVENT",{note3}]`, `["EVENT",{note2}]`, `["REQ","s",{}]`}, "OK+ OK+ OK+ note3 note2 note1 EOSE", "", "-"},
		{"the newest of the limit", []string{`["EVENT",{note1}]`, `["EVENT",{note3}]`, `["EVENT",{note2}]`, `["REQ","s",{"limit":2}]`}, "OK+ OK+ OK+ note3 note2 EOSE", "", "-"},
		{"no stored events with limit 0", []string{`["EVENT",{note1}]`, `["REQ","s",{"limit":0}]`}, "OK+ EOSE", "", "-"},
		// khatru answers filters side by side.
		{"the limit is of each filter", []string{`["EVENT",{note1}]`, `["EVENT",{note2}]`, `["REQ","s",{"limit":1},{"ids":["{note1.id}"]}]`}, "OK+ OK+ note2 note1 EOSE", "OK+ OK+ note2 note1 EOSE|OK+ OK+ note1 note2 EOSE", "-"},
		// khatru sends an event once for each filter.
		{"each event once", []string{`["EVENT",{note1}]`, `["REQ","s",{},{"kinds":[1]}]`}, "OK+ note1 EOSE", "OK+ note1 note1 EOSE", "-"},
		{"by id", []string{`["EVENT",{note1}]`, `["EVENT",{note2}]`, `["REQ","s",{"ids":["{note1.id}"]}]`}, "OK+ OK+ note1 EOSE", "", "-"},
		{"by author", []string{`["EVENT",{note1}]`, `["EVENT",{other}]`, `["REQ","s",{"authors":["{B}"]}]`}, "OK+ OK+ other EOSE", "", "-"},
		{"by tag", []string{`["EVENT",{note1}]`, `["EVENT",{other}]`, `["REQ","s",{"#t":["x","y"],"#p":["{A}"]}]`}, "OK+ OK+ other EOSE", "", "-"},
		{"only first values of tags", []string{`["EVENT",{other}]`, `["REQ","s",{"#t":["second"]}]`}, "OK+ EOSE", "", "-"},
		{"since and until include their second", []string{`["EVENT",{note1}]`, `["EVENT",{note2}]`, `["EVENT",{note3}]`, `["REQ","s",{"since":{t+2},"until":{t+2}}]`}, "OK+ OK+ OK+ note2 EOSE", "", "-"},
		{"the newest of a replaceable event", []string{`["EVENT",{profile1}]`, `["EVENT",{profile2}]`, `["REQ","s",{}]`}, "OK+ OK+ profile2 EOSE", "", "-"},
		// khatru accepts the older one and keeps it to itself.
		{"an older replaceable event is refused", []string{`["EVENT",{profile2}]`, `["EVENT",{profile1}]`, `["REQ","s",{}]`}, "OK+ OK- profile2 EOSE", "OK+ OK+ profile2 EOSE", "-"},
		{"addressable events by their d tag", []string{`["EVENT",{d1}]`, `["EVENT",{d2}]`, `["EVENT",{d1new}]`, `["REQ","s",{}]`}, "OK+ OK+ OK+ d1new d2 EOSE", "", "-"},
		{"of one second the lowest id stays", []string{`["EVENT",{high}]`, `["EVENT",{low}]`, `["REQ","s",{}]`}, "OK+ OK+ low EOSE", "", "-"},
		{"ephemeral events are not kept", []string{live, `2:["EVENT",{passing}]`, `["REQ","s",{}]`}, "EOSE passing OK+ EOSE", "", "-"},
		{"deletion by id", []string{`["EVENT",{note1}]`, `["EVENT",{del1}]`, `["REQ","s",{"kinds":[1]}]`}, "OK+ OK+ EOSE", "", "-"},
		// khatru refuses a deletion that names another's event; either is allowed.
		{"deletion of what is another's", []string{`["EVENT",{note1}]`, `["EVENT",{delByB}]`, `["REQ","s",{"kinds":[1]}]`}, "OK+ OK+ note1 EOSE", "OK+ OK- note1 EOSE", "-"},
		{"deletion by address, up to its time", []string{`["EVENT",{d1}]`, `["EVENT",{delD1}]`, `["REQ","first",{"kinds":[30001],"until":{t+2}}]`, `["EVENT",{d1new}]`, `["REQ","s",{"kinds":[30001]}]`}, "OK+ OK+ EOSE OK+ d1new EOSE", "", "-"},
		// khatru remembers no deletions.
		{"what was deleted does not come back", []string{`["EVENT",{note1}]`, `["EVENT",{del1}]`, `["EVENT",{note1}]`, `["REQ","s",{"kinds":[1]}]`}, "OK+ OK+ OK- EOSE", "OK+ OK+ OK+ note1 EOSE", "-"},
		{"new events are forwarded", []string{live, `2:["EVENT",{fresh}]`}, "EOSE fresh OK+", "", ""},
		// khatru handles messages in any order, so that nothing tells when CLOSE holds.
		{"and not after CLOSE", []string{live, `["CLOSE","live"]`, `["REQ","fence",{"limit":0,"kinds":[9]}]`, `2:["EVENT",{fresh}]`}, "EOSE EOSE OK+", "-", ""},
		// khatru keeps the old filters too.
		{"a REQ takes the place of that with its id", []string{live, `["REQ","live",{"kinds":[7]}]`, `2:["EVENT",{fresh}]`}, "EOSE EOSE OK+", "EOSE EOSE fresh OK+", ""},
		{"ids of subscriptions are a connection's own", []string{live, `2:["REQ","live",{"kinds":[7]}]`, `2:["EVENT",{fresh}]`}, "EOSE EOSE fresh OK+", "", ""},
		{"a wrong id", []string{`["EVENT",{wrongID}]`}, "OK-", "", ""},
		{"a wrong signature", []string{`["EVENT",{wrongSig}]`}, "OK-", "", ""},
		{"another author", []string{`["EVENT",{wrongAuthor}]`}, "OK-", "", ""},
		// khatru counts only with a store that does.
		{"counting (NIP-45)", []string{`["EVENT",{note1}]`, `["EVENT",{note2}]`, `["COUNT","c",{"kinds":[1]}]`}, "OK+ OK+ COUNT2", "OK+ OK+ CLOSED", "-"},
	}
}

// TestConformance has the same conversations with our relay and with others.
func TestConformance(t *testing.T) {
	for _, kind := range []string{"ours", "khatru", "rely"} {
		t.Run(kind, func(t *testing.T) {
			for _, c := range conformanceCases() {
				want := c.want
				if kind == "khatru" && c.khatru != "" {
					want = c.khatru
				}
				if kind == "rely" && c.rely != "" {
					want = c.rely
				}
				if want == "-" {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					if got := converse(t, startKind(t, kind), c.say); !slices.Contains(strings.Split(want, "|"), got) {
						t.Errorf("got  %s\nwant %s", got, want)
					}
				})
			}
		})
	}
}

// startKind starts a relay in a process of its own, because others' have data
// races, and leave goroutines behind.
func startKind(t *testing.T, kind string) (url string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveAs+"="+kind)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// converse says everything, one after the other, waits for the answer to each
// message, and returns all answers.
func converse(t *testing.T, url string, say []string) string {
	events, names := conformanceEvents(t)
	clients := []*talker{newTalker(t, url, names), newTalker(t, url, names)}
	var all []string
	for _, line := range say {
		who := clients[0]
		if rest, second := strings.CutPrefix(line, "2:"); second {
			who, line = clients[1], rest
		}
		all = append(all, who.ask(events.Replace(line), clients[0])...)
	}
	return strings.Join(all, " ")
}

// talker is a client that writes down what it is told.
type talker struct {
	t     *testing.T
	conn  *websocket.Conn
	names map[string]string // of events by id
}

func newTalker(t *testing.T, url string, names map[string]string) *talker {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	t.Cleanup(func() { conn.CloseNow() })
	return &talker{t, conn, names}
}

// ask sends a message and returns the answers up to the last there must be. What
// an EVENT of another client brings to the first is asked for too: by a REQ
// behind it, whose EOSE comes later on every relay that keeps order at all.
func (k *talker) ask(msg string, first *talker) (words []string) {
	k.t.Helper()
	if err := k.conn.Write(k.t.Context(), websocket.MessageText, []byte(msg)); err != nil {
		k.t.Fatal(err)
	}
	if strings.HasPrefix(msg, `["CLOSE"`) {
		return nil
	}
	words = k.until(func(word string) bool {
		return strings.HasPrefix(word, "OK") || strings.HasPrefix(word, "COUNT") || word == "EOSE" || word == "CLOSED"
	})
	if k == first || !strings.HasPrefix(msg, `["EVENT"`) {
		return words
	}
	fence := `["REQ","fence",{"kinds":[9],"limit":0}]`
	if err := first.conn.Write(k.t.Context(), websocket.MessageText, []byte(fence)); err != nil {
		k.t.Fatal(err)
	}
	seen := first.until(func(word string) bool { return word == "EOSE" })
	return append(seen[:len(seen)-1], words...)
}

func (k *talker) until(last func(word string) bool) (words []string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, msg, err := k.conn.Read(ctx)
		if err != nil {
			k.t.Fatalf("after %q: %v", words, err)
		}
		word := k.word(msg)
		if word == "" {
			continue
		}
		if words = append(words, word); last(word) {
			return words
		}
	}
}

// word is a relay's message in short; "" for one that says nothing here.
func (k *talker) word(msg []byte) string {
	var parts []json.RawMessage
	var verb string
	if json.Unmarshal(msg, &parts) != nil || len(parts) < 2 || json.Unmarshal(parts[0], &verb) != nil {
		k.t.Fatalf("not a relay's message: %s", msg)
	}
	switch verb {
	case "OK":
		return map[string]string{"true": "OK+", "false": "OK-"}[string(parts[2])]
	case "EVENT":
		var e struct{ ID string }
		json.Unmarshal(parts[2], &e)
		return k.names[e.ID]
	case "COUNT":
		var c struct{ Count int }
		json.Unmarshal(parts[2], &c)
		return fmt.Sprint("COUNT", c.Count)
	case "EOSE", "CLOSED":
		return verb
	}
	return ""
}

// conformanceEvents makes the events that the cases name.
func conformanceEvents(t *testing.T) (replacer *strings.Replacer, names map[string]string) {
	a, b := newAuthor(t), newAuthor(t)
	now := time.Now().Add(-time.Hour).Truncate(time.Second)
	at := func(n int) time.Time { return now.Add(time.Duration(n) * time.Second) }
	names = make(map[string]string)
	var pairs []string
	add := func(name, raw, id string) {
		names[id] = name
		pairs = append(pairs, "{"+name+"}", raw, "{"+name+".id}", id)
	}
	make := func(name string, by author, kind, when int, tags ...[]string) (id string) {
		raw, id := by.sign(kind, at(when), name, tags...)
		add(name, raw, id)
		return id
	}
	id1 := make("note1", a, 1, 1)
	make("note2", a, 1, 2)
	make("note3", a, 1, 3)
	make("other", b, 1, 4, []string{"t", "x", "second"}, []string{"p", a.hex()})
	make("profile1", a, 0, 1)
	make("profile2", a, 0, 2)
	make("d1", a, 30001, 1, []string{"d", "1"})
	make("d2", a, 30001, 1, []string{"d", "2"})
	make("d1new", a, 30001, 9, []string{"d", "1"})
	make("del1", a, 5, 5, []string{"e", id1})
	make("delByB", b, 5, 5, []string{"e", id1})
	make("delD1", a, 5, 5, []string{"a", "30001:" + a.hex() + ":1"})
	passing, id := a.now(20001, "passing")
	add("passing", passing, id)
	fresh, id := a.now(1, "fresh")
	add("fresh", fresh, id)
	x, xid := a.sign(10002, at(1), "x")
	y, yid := a.sign(10002, at(1), "y")
	if xid > yid {
		x, xid, y, yid = y, yid, x, xid
	}
	add("low", x, xid)
	add("high", y, yid)
	pairs = append(pairs, "{A}", a.hex(), "{B}", b.hex(), "{t+2}", fmt.Sprint(at(2).Unix()),
		"{wrongID}", strings.Replace(fresh, `"content":"fresh"`, `"content":"stale"`, 1),
		"{wrongAuthor}", strings.Replace(fresh, a.hex(), b.hex(), 1),
		"{wrongSig}", fresh[:strings.Index(fresh, `"sig":"`)+7]+strings.Repeat("7", 128)+`"}`)
	return strings.NewReplacer(pairs...), names
}
