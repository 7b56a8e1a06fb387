package relayd

import (
	"errors"
	"time"
)

var (
	errSilent = errors.New("relayd: the client is silent and does not answer pings")
	errMemory = errors.New("relayd: the relay needs the memory of the longest queue")
)

// watch finds clients that are gone without having said so, and events that have
// expired.
func (s *Server) watch() {
	tick := min(s.limits().PingAfter, s.limits().PongTimeout) / 4
	ticker := time.NewTicker(max(tick, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		s.store.tidy(time.Now())
		for _, c := range s.attached() {
			idle := c.ws.Idle()
			switch {
			case c.asked.IsZero() && idle >= s.limits().PingAfter:
				c.ws.Ping()
				c.asked = time.Now()
			case !c.asked.IsZero() && idle <= time.Since(c.asked):
				c.asked = time.Time{}
			case !c.asked.IsZero() && time.Since(c.asked) >= s.limits().PongTimeout:
				c.ws.Fail(errSilent)
			}
		}
	}
}

// shedLongest cuts the connection whose queue is the longest, but not one after
// the other before the first can have had an effect.
func (s *Server) shedLongest() {
	s.mu.Lock()
	if time.Since(s.shed) < shedPause {
		s.mu.Unlock()
		return
	}
	s.shed = time.Now()
	s.mu.Unlock()
	var longest *conn
	most := 0
	for _, c := range s.attached() {
		if n, _ := c.ws.Queued(); n > most {
			longest, most = c, n
		}
	}
	if longest != nil {
		s.stats.slow.Add(1)
		s.log.Warn("out of memory for messages, cutting the longest queue", "bytes", most)
		longest.ws.Fail(errMemory)
	}
}

const shedPause = 50 * time.Millisecond
