package session

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run only the simulation with this seed")
	seeds   = flag.Uint64("seeds", 500, "how many simulations to run")
)

// TestSeeds plays random sessions over random carriers: every byte arrives once
// and in order, refusals, resets and half-closes reach the other end, nothing
// stays behind and memory stays within its bounds. A seed that fails is printed;
// run it alone with -seed.
func TestSeeds(t *testing.T) {
	if *oneSeed != 0 {
		playSeed(t, *oneSeed)
		return
	}
	n := *seeds
	if testing.Short() {
		n = min(n, 50)
	}
	for seed := uint64(1); seed <= n && !t.Failed(); seed++ {
		playSeed(t, seed)
	}
}

func playSeed(t *testing.T, seed uint64) {
	w := newWorld(t, seed, false)
	if !w.play(seed) {
		return
	}
	needed := newWorld(t, seed, true)
	if !needed.play(seed) {
		return
	}
	sent, lost := w.events()
	least, _ := needed.events()
	// A lost acknowledgement costs the packet that asks for another one, too;
	// paths that stand by or are stuck are asked for signs of life; and how late
	// packets may come has to be learned for each.
	signs := uint64(len(w.ends[0].paths))*uint64(w.now/(10*second)+25) + w.probesOfStuck()
	if most := least*3/2 + 2*lost + signs; sent > most && !w.cancels() {
		t.Errorf("seed %d: %d packets sent of which %d were lost, %d would do without losses (%s)", seed, sent, lost, least, w.what)
	}
}

// play runs the simulation to its end and reports whether all is well.
func (w *world) play(seed uint64) bool {
	const limit = 20 * time.Minute
	done := w.run(limit, func() bool { return w.quiet() })
	switch {
	case w.fail != "":
		w.t.Errorf("seed %d: at %v: %s (%s)", seed, w.now, w.fail, w.what)
	case !done:
		w.t.Errorf("seed %d: not done after %v: %s (%s)", seed, limit, w.state(), w.what)
	default:
		w.checkEnd()
		if w.fail != "" {
			w.t.Errorf("seed %d: at the end: %s (%s)", seed, w.fail, w.what)
		}
	}
	return !w.t.Failed()
}

// cancels reports whether an application ends a stream at a certain time: then
// how much is to be carried depends on how fast that is.
func (w *world) cancels() bool {
	for _, p := range w.plans {
		if p.resetBy+p.closeBy > 0 {
			return true
		}
	}
	return false
}

// probesOfStuck is how many probes go while carriers are stuck.
func (w *world) probesOfStuck() (n uint64) {
	for _, e := range w.ends {
		for _, l := range e.links {
			for _, c := range l.stuck {
				n += uint64((c.to - c.from) / second)
			}
		}
	}
	return n
}

// events is how many packets were sent, and how many of them did not arrive.
func (w *world) events() (sent, lost uint64) {
	for _, e := range w.ends {
		sent += e.core.stats.PacketsSent
		for _, l := range e.links {
			lost += l.lost + l.refused
		}
	}
	return sent, lost
}

// plan is what both ends of a simulated stream do.
type plan struct {
	up, down         uint64
	first            int  // bytes of up that go with the OPEN
	early, forget    bool // of the dialer's application
	flow             bool
	piece            int
	every            time.Duration
	slowUp, slowDown float64 // readers
	refuse           bool
	answerAfter      time.Duration
	resetBy          int // 0 nobody, 1 the dialer, 2 the listener
	resetAfter       time.Duration
	closeBy          int // who closes without reading to the end
	closeAfter       time.Duration
	startAt          time.Duration
	dialer, listener *simStream
	cancelled        bool
}

// world is a simulation with a random plan.
type world struct {
	*sim
	what    string
	plans   []*plan
	started int
	checks  int
}

func newWorld(t testing.TB, seed uint64, perfect bool) *world {
	r := rand.New(rand.NewPCG(seed, 2))
	links := randomLinks(r, perfect)
	maxPacket := []int{1024, 10240, 40960, 65535}[r.IntN(4)]
	cfg := Config{DeadAfter: 5 * time.Minute, Spread: Spread(r.IntN(2)), Duplicate: r.IntN(4) == 0}
	if r.IntN(3) == 0 { // tight
		cfg.Local = Limits{Window: uint64(70<<10 + r.IntN(1<<20)), StreamWindow: uint64(64<<10 + r.IntN(1<<18))}
		cfg.Peer = cfg.Local
		cfg.SendBuffer = 64<<10 + r.IntN(1<<20)
	}
	w := &world{sim: newSim(t, seed, cfg, maxPacket, links...)}
	w.onOpen = w.opened
	for i := range 1 + r.IntN(12) {
		p := randomPlan(r, maxPacket)
		w.plans = append(w.plans, p)
		w.at(p.startAt, func() { w.start(i, p) })
	}
	for range r.IntN(4) * r.IntN(2) {
		w.randomFlow(r, len(w.plans))
	}
	if r.IntN(4) == 0 && !perfect {
		w.randomDetach(r, maxPacket)
	}
	w.what = fmt.Sprintf("%d paths, spread %d, duplicate %v, packets of %d, %d streams",
		len(links), cfg.Spread, cfg.Duplicate, maxPacket, len(w.plans))
	return w
}

func randomPlan(r *rand.Rand, maxPacket int) *plan {
	size := func() uint64 {
		n := uint64(1) << r.IntN(21)
		if maxPacket < 2000 {
			n >>= 3
		}
		return r.Uint64N(n + 1)
	}
	p := &plan{up: size(), down: size(), startAt: time.Duration(r.IntN(10000)) * time.Millisecond}
	if r.IntN(3) == 0 {
		p.piece = 1 + r.IntN(2000)
		p.up, p.down = p.up%20000, p.down%20000
		p.every = time.Duration(r.IntN(30)) * time.Millisecond
	}
	if r.IntN(4) == 0 {
		p.slowUp, p.slowDown = 1e4+r.Float64()*1e6, 1e4+r.Float64()*1e6
	}
	if r.IntN(4) == 0 {
		p.first = int(min(p.up, r.Uint64N(unsentFair+1)))
	}
	p.early = r.IntN(3) == 0
	p.refuse = r.IntN(8) == 0
	if r.IntN(2) == 0 {
		p.answerAfter = time.Duration(r.IntN(3000)) * time.Millisecond
	}
	after := time.Duration(r.IntN(5000)) * time.Millisecond
	switch r.IntN(6) {
	case 0:
		p.resetBy, p.resetAfter = 1+r.IntN(2), after
	case 1:
		p.closeBy, p.closeAfter = 1+r.IntN(2), after
	case 2:
		p.forget = p.up > 0
	}
	return p
}

// randomFlow plans a flow of datagrams that its dialer closes in the end.
func (w *world) randomFlow(r *rand.Rand, i int) {
	p := &plan{flow: true, startAt: time.Duration(r.IntN(10000)) * time.Millisecond}
	w.plans = append(w.plans, p)
	n, after := r.IntN(100), time.Duration(1+r.IntN(10000))*time.Millisecond
	network := []wire.Network{wire.NetworkUDP, wire.NetworkPing}[r.IntN(2)]
	abort := r.IntN(3) == 0
	w.at(p.startAt, func() {
		w.started++
		st := w.dial(network, i, nil)
		x := w.ends[0].flow(st, byte(i))
		w.chat(x, n, after)
		if abort {
			w.at(w.now+after/8, func() { w.ends[0].core.reset(st, wire.CodeReset, "") })
		}
	})
}

// chat sends n datagrams one by one, and closes the flow after a while unless
// that is 0.
func (w *world) chat(x *simFlow, n int, after time.Duration) {
	var beat func()
	beat = func() {
		if x.sent < n && x.st.err == nil {
			x.send(w.r.IntN(400))
			w.at(w.now+10*time.Millisecond, beat)
		}
	}
	beat()
	if after > 0 {
		w.at(w.now+after, func() { x.end.core.close(w.now, x.st) })
	}
}

// randomDetach plans that the ends lose a carrier, one before the other, and
// get another one later.
func (w *world) randomDetach(r *rand.Rand, maxPacket int) {
	at := time.Duration(r.IntN(10000)) * time.Millisecond
	for _, e := range w.ends {
		w.at(at+time.Duration(r.IntN(3000))*time.Millisecond, func() { e.core.detach(w.now, e.paths[0]) })
	}
	l := [2]*link{randomLink(r), randomLink(r)}
	w.at(at+time.Duration(r.IntN(30000))*time.Millisecond, func() { w.join(maxPacket, l) })
}

// start lets the dialer's application of a plan begin.
func (w *world) start(i int, p *plan) {
	w.started++
	x := w.openWith(i, p.up, p.first)
	if x == nil {
		return
	}
	x.piece, x.every, x.readRate = p.piece, p.every, p.slowDown
	x.early, x.forget = p.early, p.forget
	p.dialer = x
	w.endBy(p, 1, w.ends[0].core, x.st)
}

// opened lets the listener's application of a plan answer.
func (w *world) opened(st *stream) {
	if len(st.dest) != 4 {
		return // of a reset that overtook its OPEN
	}
	i := numberOf(st)
	p := w.plans[i]
	c := w.ends[1].core
	if p.flow {
		if c.accept(st) == nil {
			w.chat(w.ends[1].flow(st, ^byte(i)), 30, 0)
		}
		return
	}
	w.at(w.now+p.answerAfter, func() {
		if p.refuse {
			c.refuse(st, wire.CodeRefused, "no")
			return
		}
		if c.accept(st) != nil {
			return
		}
		x := w.ends[1].app(st, p.down, ^byte(i), byte(i))
		x.piece, x.every, x.readRate = p.piece, p.every, p.slowUp
		p.listener = x
		w.endBy(p, 2, c, st)
	})
}

func (w *world) endBy(p *plan, who int, c *core, st *stream) {
	if p.resetBy == who {
		w.at(w.now+p.resetAfter, func() { p.cancelled = true; c.reset(st, wire.CodeReset, "enough") })
	}
	if p.closeBy == who {
		w.at(w.now+p.closeAfter, func() {
			if st.phase == opened || p.early {
				p.cancelled = true
				c.close(w.now, st)
			}
		})
	}
}

// quiet reports that every stream has gone at both ends and nothing is under
// way.
func (w *world) quiet() bool {
	if w.checks++; w.checks%64 == 0 {
		w.checkBounds()
	}
	if w.started < len(w.plans) {
		return false
	}
	for _, e := range w.ends {
		if e.core.err != nil {
			w.fail = fmt.Sprintf("session ended: %v", e.core.err)
			return false
		}
		if e.core.open > 0 || e.core.outstanding() || e.core.rxRead < e.core.rxHighest {
			return false
		}
		for _, p := range e.paths {
			if p.busy && !p.gone {
				return false
			}
		}
	}
	return true
}

func (w *world) checkBounds() {
	for i, e := range w.ends {
		c := e.core
		var held uint64
		for _, s := range c.streams {
			held += uint64(s.in.buf.held())
			if len(s.in.got) > maxGaps+1 {
				w.fail = fmt.Sprintf("stream %d has %d holes", s.id, len(s.in.got))
			}
		}
		if most := 2*c.cfg.Local.Window + uint64(len(c.streams))*2*cellSize; held > most {
			w.fail = fmt.Sprintf("end %d holds %d bytes, at most %d are allowed", i, held, most)
		}
		if c.unsent < 0 || c.unsent > c.cfg.SendBuffer+c.open*unsentFair {
			w.fail = fmt.Sprintf("end %d has %d bytes unsent", i, c.unsent)
		}
		if len(c.rx.runs) > maxReceived {
			w.fail = fmt.Sprintf("end %d keeps %d runs of packet numbers", i, len(c.rx.runs))
		}
	}
}

func (w *world) checkEnd() {
	a, b := w.ends[0].core, w.ends[1].core
	for _, x := range [][2]*core{{a, b}, {b, a}} {
		tx, rx := x[0], x[1]
		if tx.txSent != rx.rxHighest || rx.rxRead != rx.rxHighest {
			w.fail = fmt.Sprintf("credit: sent %d, counted %d, given back %d", tx.txSent, rx.rxHighest, rx.rxRead)
		}
		if tx.unsent != 0 || tx.txHeld != 0 || tx.dgIn.bytes+tx.dgOut.bytes != 0 || tx.control.head != nil || tx.fresh.n+tx.bulk.n > 0 || len(tx.streams) > 0 {
			w.fail = fmt.Sprintf("left behind: %d bytes unsent, datagrams %d in, %d out, control %v, %d streams ready, %d alive",
				tx.unsent, tx.dgIn.bytes, tx.dgOut.bytes, tx.control.head != nil, tx.fresh.n+tx.bulk.n, len(tx.streams))
		}
	}
	for i, p := range w.plans {
		w.checkPlan(i, p)
	}
}

// checkPlan sees whether each end saw what the other did.
func (w *world) checkPlan(i int, p *plan) {
	d, l := p.dialer, p.listener
	switch {
	case p.cancelled, p.flow:
	case p.refuse:
		if e, ok := d.st.err.(*wire.Error); !ok || e.Code != wire.CodeRefused || d.st.phase != refused {
			w.fail = fmt.Sprintf("stream %d: not refused: %v", i, d.st.err)
		}
	case p.forget && l != nil && l.read == p.up && l.eof && l.err == nil:
	case l == nil:
		w.fail = fmt.Sprintf("stream %d never arrived", i)
	case l.read != p.up || d.read != p.down || !l.eof || !d.eof || l.err != nil || d.err != nil:
		w.fail = fmt.Sprintf("stream %d: up %d of %d (%v %v), down %d of %d (%v %v)",
			i, l.read, p.up, l.eof, l.err, d.read, p.down, d.eof, d.err)
	}
}

// state describes what a simulation hangs on.
func (w *world) state() string {
	text := ""
	for i, e := range w.ends {
		text += fmt.Sprintf("end %d: open %d, outstanding %v, err %v; ", i, e.core.open, e.core.outstanding(), e.core.err)
		for _, p := range e.paths {
			text += fmt.Sprintf("[inflight %d of %d, busy %v, timeouts %d, rtt %v] ", p.inflight, p.window, p.busy, p.timeouts, p.srtt)
		}
		for _, s := range e.core.streams {
			text += fmt.Sprintf("{%d phase %d reset %v/%v need %b active %d out %d/%d/%d credit %d lost %v fin %v/%v/%v in %d/%d final %d %v disc %v} ",
				s.id, s.phase, s.resetSent, s.resetDone, s.need, s.active, s.out.acked, s.out.next, s.out.end, s.out.credit, s.out.lost,
				s.out.fin, s.out.finSent, s.out.finAcked, s.in.read, s.in.highest, s.in.final, s.in.hasFinal, s.in.discard)
		}
	}
	return text
}
