package exit

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"
)

// NameserverStatus is how one of the exit's name servers does.
type NameserverStatus struct {
	Server string // as ParseNameserver reads it; resolv.conf's path if that names none
	Failed int64  // tries without an answer, since New
	// Failing says that the last few tries had no answer: since Since, the last
	// one for Reason, which holds nothing that was asked for.
	Failing bool
	Since   time.Time
	Reason  string
}

const (
	// failsInARow is how many tries without an answer make a server that fails:
	// a datagram may be lost.
	failsInARow = 3
	// tellEvery is between two warnings about the same server at least: clients
	// choose what is asked, and some names are answered late.
	tellEvery = 10 * time.Minute
	// maxWatched is more servers than are in force at a time.
	maxWatched = 64
)

// nameserverWatch knows which name servers fail, and tells the operator when one
// begins to and when it answers again. Its zero value tells nobody. It is safe for
// concurrent use.
type nameserverWatch struct {
	log *slog.Logger // or nil

	mu      sync.Mutex
	servers map[string]*watchedServer // those that have failed once
}

type watchedServer struct {
	failed int64
	inARow int
	since  time.Time // of the first in a row
	reason string
	told   bool      // and not that it answers again
	quiet  time.Time // until when it is not told again
}

// answered notes an answer of a server.
func (w *nameserverWatch) answered(server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.servers[server]
	if s == nil || s.inARow == 0 {
		return
	}
	s.inARow = 0
	if s.told {
		s.told = false
		w.log.Info("exit: a name server answers again", "server", server)
	}
}

// failed notes a try without an answer.
func (w *nameserverWatch) failed(server string, reason error, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.servers[server]
	if s == nil {
		if w.servers == nil || len(w.servers) >= maxWatched { // resolv.conf has changed often
			w.servers = make(map[string]*watchedServer)
		}
		s = new(watchedServer)
		w.servers[server] = s
	}
	if s.inARow == 0 {
		s.since = now
	}
	s.failed++
	s.inARow++
	s.reason = reason.Error()
	if w.log != nil && !s.told && s.inARow >= failsInARow && now.After(s.quiet) {
		s.told, s.quiet = true, now.Add(tellEvery)
		w.log.Warn("exit: a name server does not answer", "server", server, "reason", s.reason)
	}
}

// status tells of a server.
func (w *nameserverWatch) status(server string) NameserverStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := NameserverStatus{Server: server}
	if s := w.servers[server]; s != nil {
		if st.Failed = s.failed; s.inARow >= failsInARow {
			st.Failing, st.Since, st.Reason = true, s.since, s.reason
		}
	}
	return st
}

// inWords is why a try failed, beside the server's name, for people.
func inWords(err error) error {
	if web := (*url.Error)(nil); errors.As(err, &web) {
		err = web.Err // the rest is the server once more
	}
	if err == context.DeadlineExceeded {
		return errLate
	}
	return err
}

var errLate = errors.New("no answer in time")

// isTimeout reports whether a server was not heard of in time.
func isTimeout(err error) bool {
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

// Nameservers tells of the name servers that are asked now.
func (s *Server) Nameservers() []NameserverStatus {
	servers, err := s.resolver.servers()
	if err != nil {
		st := s.resolver.watch.status(resolvConfPath)
		st.Failing, st.Reason = true, err.Error()
		return []NameserverStatus{st}
	}
	all := make([]NameserverStatus, 0, len(servers))
	for _, u := range servers {
		all = append(all, s.resolver.watch.status(u.String()))
	}
	return all
}
