package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Found is everything that was observed. What was not tried is nil or empty.
type Found struct {
	Version, System string
	Time            time.Time
	Machine         []Line // judged by Machine
	Config          Step   // reading the configuration
	Tunnel          Tunnel
	// Stopped says why nothing beyond this machine was tried, or is nil.
	Stopped error
	Relays  []Relay
	Exit    Exit
}

// Step is one thing that was tried.
type Step struct {
	Name  string // of the hop
	Found string
	Took  time.Duration
	Err   error
}

// Tunnel is what a running `nws-vpn up` says.
type Tunnel struct {
	Running bool
	Denied  bool // it may be running, but this user may not ask
	Closed  bool // what an earlier one has left keeps the machine closed
	State   string
	Since   time.Duration
	Problem string
	Refused []string // what the exit refused flows for
}

// The hops of a relay, in their order.
const (
	HopName        = "name"
	HopConnection  = "connection"
	HopTLS         = "TLS"
	HopWebsocket   = "websocket"
	HopQuestion    = "subscription"
	HopDescription = "description"
	HopClock       = "clock"
)

// Relay is what was found of one relay: the steps that were tried, in order, up
// to the one that failed.
type Relay struct {
	URL   string
	Steps []Step
	// Description is what it says of itself (NIP-11); its failure ends nothing.
	Description *Step
	// Ahead is how far the relay's clock is ahead of ours, if it told.
	Ahead     time.Duration
	ToldClock bool
}

// Up reports whether the relay can be used.
func (r *Relay) Up() bool {
	return len(r.Steps) > 0 && r.Steps[len(r.Steps)-1].Name == HopQuestion && r.Steps[len(r.Steps)-1].Err == nil
}

// The hops of an exit, in their order.
const (
	HopChoice    = "choice"
	HopHandshake = "handshake"
	HopResolver  = "names"
	HopConnect   = "connecting out"
	HopRefusals  = "refusals" // of the tunnel that runs
)

// Exit is what was found of the exit; the first failed step is the last one,
// except that both HopResolver and HopConnect are always tried after a handshake.
type Exit struct {
	Name  string // npub, or what the user calls it
	Steps []Step
}

func (e *Exit) step(name string) *Step {
	for i := range e.Steps {
		if e.Steps[i].Name == name {
			return &e.Steps[i]
		}
	}
	return nil
}

// Judge makes the report of what was found.
func Judge(f *Found) *Report {
	r := &Report{Schema: Schema, Version: f.Version, System: f.System, Time: f.Time}
	r.add(f.Machine...)
	r.add(judgeConfig(f.Config), judgeTunnel(f.Tunnel))
	// A clock that is wrong is why exits and relays do not answer: it comes
	// before them.
	r.add(judgeClock(f))
	for i := range f.Relays {
		r.add(judgeRelay(&f.Relays[i], f.Stopped)...)
	}
	r.add(judgeExit(f)...)
	names, connect := f.Exit.step(HopResolver), f.Exit.step(HopConnect)
	r.Works = names != nil && names.Err == nil && connect != nil && connect.Err == nil
	r.finish()
	return r
}

const machine = "this machine"

func judgeConfig(s Step) Line {
	l := Line{Place: machine, Hop: "configuration", Verdict: OK, Found: s.Found}
	if s.Err != nil {
		l.Verdict, l.Found = Failed, s.Err.Error()
		l.Do = "correct that line; nws.toml.example shows every key"
	}
	return l
}

func judgeTunnel(t Tunnel) Line {
	l := Line{Place: machine, Hop: "tunnel", Verdict: OK, Found: "not running"}
	switch {
	case t.Denied:
		l.Verdict, l.Found, l.Do = Unknown, "it may be running, but this user may not ask it", "run this as the user who ran nws-vpn up, mostly root"
	case !t.Running && t.Closed:
		l.Verdict, l.Found = Note, "not running, and the machine stays closed: programs reach nothing"
		l.Do = "run `nws-vpn up`; `nws-vpn down --unlock` opens the machine"
	case !t.Running:
	case t.State == "connected":
		l.Found = fmt.Sprintf("connected for %v", t.Since.Round(time.Second))
	default:
		l.Verdict, l.Found = Note, fmt.Sprintf("%s for %v: %s", t.State, t.Since.Round(time.Second), cmp.Or(t.Problem, "no reason given"))
		l.Do = "the hops below are tried anew, beside it"
	}
	return l
}

// How far a clock may be off: beyond the first exits refuse to talk, beyond the
// second it is worth a note. A Date has whole seconds, and takes its time.
const (
	clockRefused = 60 * time.Second
	clockNoted   = 20 * time.Second
)

// judgeClock takes the relays' clocks together: most of them are right.
func judgeClock(f *Found) Line {
	l := Line{Place: machine, Hop: HopClock, Verdict: OK}
	var ahead []time.Duration
	for _, r := range f.Relays {
		if r.ToldClock {
			ahead = append(ahead, r.Ahead)
		}
	}
	shake := f.Exit.step(HopHandshake)
	if shake != nil && shake.Err != nil && complainsOfClock(shake.Err.Error()) {
		l.Verdict, l.Found = Failed, shake.Err.Error()
		l.Do = "set this machine's clock, best by NTP (timedatectl set-ntp true)"
		return l
	}
	if len(ahead) == 0 {
		l.Verdict, l.Found = NotTried, "no relay told its time"
		return l
	}
	slices.Sort(ahead)
	off := ahead[len(ahead)/2]
	by := "this machine's clock is behind"
	if off < 0 {
		by = "this machine's clock is ahead"
	}
	of := fmt.Sprintf("that of %d relays", len(ahead))
	if len(ahead) == 1 {
		of = "the relay's"
	}
	l.Found = fmt.Sprintf("%s of %s by %v", by, of, off.Abs().Round(time.Second))
	switch agreed := shake != nil && shake.Err == nil; {
	case off.Abs() > clockRefused && !agreed:
		l.Verdict = Failed
		l.Do = "set this machine's clock, best by NTP (timedatectl set-ntp true)"
	case off.Abs() > clockRefused:
		l.Verdict = Note
		l.Found += ", but the exit agrees with ours"
	case off.Abs() > clockNoted:
		l.Verdict = Note
		l.Do = "let NTP set this machine's clock: beyond a minute exits refuse to talk"
	default:
		l.Found = "right, by " + of
	}
	return l
}

// complainsOfClock recognizes what exits and relays say to somebody whose clock
// is wrong.
func complainsOfClock(text string) bool {
	text = strings.ToLower(text)
	for _, words := range []string{"your clock differs", "created_at", "timestamp"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// relayHops are those of a relay at that URL.
func relayHops(url string) []string {
	hops := []string{HopName, HopConnection, HopTLS, HopWebsocket, HopQuestion}
	if strings.HasPrefix(url, "ws:") {
		hops = slices.Delete(hops, 2, 3)
	}
	return hops
}

func judgeRelay(r *Relay, stopped error) []Line {
	place := "relay " + r.URL
	var lines []Line
	failed := stopped != nil
	for i, hop := range relayHops(r.URL) {
		l := Line{Place: place, Hop: hop, Verdict: NotTried}
		switch {
		case i >= len(r.Steps):
			if stopped != nil && i == 0 {
				l.Found = stopped.Error()
			}
		case r.Steps[i].Err != nil:
			failed = true
			l.Verdict, l.Found, l.Do = Failed, strings.TrimPrefix(r.Steps[i].Err.Error(), place+": "), relayRemedy(hop, r.Steps[i].Err)
		default:
			l.Verdict, l.Found, l.Millis = OK, r.Steps[i].Found, millis(r.Steps[i].Took)
		}
		lines = append(lines, l)
	}
	l := Line{Place: place, Hop: HopDescription, Verdict: NotTried}
	if d := r.Description; d != nil && !failed {
		l.Verdict, l.Found, l.Millis = OK, d.Found, millis(d.Took)
		if d.Err != nil {
			l.Verdict, l.Found = Note, "the relay does not describe itself (NIP-11), so its limits are unknown: "+d.Err.Error()
		}
	}
	return append(lines, l)
}

func judgeExit(f *Found) []Line {
	place := "exit " + cmp.Or(f.Exit.Name, "(none chosen)")
	var lines []Line
	for _, hop := range []string{HopChoice, HopHandshake, HopResolver, HopConnect} {
		l := Line{Place: place, Hop: hop, Verdict: NotTried}
		switch s := f.Exit.step(hop); {
		case s == nil:
		case s.Err != nil:
			l.Verdict, l.Found, l.Do = Failed, s.Err.Error(), exitRemedy(hop, s.Err, f)
		default:
			l.Verdict, l.Found, l.Millis = OK, s.Found, millis(s.Took)
		}
		lines = append(lines, l)
	}
	if told := f.Tunnel.Refused; len(told) > 0 {
		lines = append(lines, Line{
			Place: place, Hop: HopRefusals, Verdict: Note, Found: strings.Join(told, "; "),
			Do: "these are the exit's rules and limits for what programs asked of it: ask its operator, or use another exit",
		})
	}
	return lines
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
