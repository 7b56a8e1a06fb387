package relayd

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// limiters applies one Rate to each of many, whom it remembers while they have
// taken something lately. It may be used concurrently.
type limiters[K comparable] struct {
	rate     Rate
	maxEvent int

	mu    sync.Mutex
	of    map[K]*limiter
	swept time.Time
}

// maxLimiters bounds how many are remembered. Beyond it one is forgotten, which
// one chance decides.
const maxLimiters = 1 << 16

func newLimiters[K comparable](r Rate, maxEvent int) *limiters[K] {
	return &limiters[K]{rate: r, maxEvent: maxEvent, of: make(map[K]*limiter)}
}

// take is limiter.take for who.
func (l *limiters[K]) take(who K, size int, now time.Time) (err error) {
	l.with(who, now, func(l *limiter) { err = l.take(size, now) })
	return err
}

// request is limiter.request for who.
func (l *limiters[K]) request(who K, now time.Time) (wait time.Duration) {
	l.with(who, now, func(l *limiter) { wait = l.request(now) })
	return wait
}

func (l *limiters[K]) with(who K, now time.Time, f func(*limiter)) {
	if l.rate.unlimited() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.of[who]
	if one == nil {
		l.makeRoom(now)
		fresh := l.rate.limiter(l.maxEvent, now)
		one = &fresh
		l.of[who] = one
	}
	f(one)
}

func (l *limiters[K]) makeRoom(now time.Time) {
	if now.Sub(l.swept) >= time.Minute {
		l.swept = now
		for who, one := range l.of {
			if one.full(now) {
				delete(l.of, who)
			}
		}
	}
	for who := range l.of {
		if len(l.of) < maxLimiters {
			return
		}
		delete(l.of, who)
	}
}

// source is where a client connects from: an IPv4 address or an IPv6 /64. The
// zero value stands for loopback, which nothing bounds.
type source netip.Prefix

func (s source) bounded() bool { return netip.Prefix(s).IsValid() }

// sourceOf finds out where a request comes from.
func sourceOf(r *http.Request, behindProxy bool) source {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return source{} // a connection in memory
	}
	addr := peer.Addr().Unmap()
	if behindProxy && addr.IsLoopback() {
		// Some proxies add a line to what the client has sent: the last word of
		// the last line is the proxy's, all before that anybody's.
		all := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		forwarded, err := netip.ParseAddr(strings.TrimSpace(all[len(all)-1]))
		if err != nil {
			return source{}
		}
		addr = forwarded.Unmap()
	}
	if addr.IsLoopback() {
		return source{}
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return source{}
	}
	return source(prefix)
}
