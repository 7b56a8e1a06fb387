package exit

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
)

// Site is one of the exit's own names, and what stands behind it.
type Site struct {
	Key [32]byte
	// Services are what stands behind the ports of the name.
	Services map[uint16]Target
	// TLS is for the services that need it; see Target.
	TLS *tls.Config
}

// site is a Site in use.
type site struct {
	key      [32]byte
	services map[uint16]*service
	tls      *tls.Config // or nil: no service needs it
}

// SetSite adds a name, or has what stands behind it changed from now on. Flows
// that are open stay open. On an error nothing changes. It is safe for concurrent
// use.
func (s *Server) SetSite(to Site) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.sites.Load()
	next := make(map[[32]byte]*site, len(*old)+1)
	maps.Copy(next, *old)
	added, err := s.newSite(to, next[to.Key])
	if err != nil {
		return err
	}
	before := next[to.Key]
	next[to.Key] = added
	s.sites.Store(&next)
	before.rest(added)
	return nil
}

// newSite makes a site. What is as it was before is taken from there, with its
// connections.
func (s *Server) newSite(to Site, before *site) (*site, error) {
	made := &site{key: to.Key, services: make(map[uint16]*service, len(to.Services)), tls: to.TLS}
	for port, target := range to.Services {
		if port == 0 || target.Network != "tcp" && target.Network != "unix" {
			return nil, fmt.Errorf("exit: service %d = %v: want a port from 1 to 65535 and a target made by ParseTarget", port, target)
		}
		if target.TLS && to.TLS == nil {
			return nil, fmt.Errorf("exit: service %d = %v: there is no certificate for it", port, target)
		}
		if before != nil && before.services[port] != nil && before.services[port].Target == target {
			made.services[port] = before.services[port]
			continue
		}
		svc := &service{Target: target}
		if svc.HTTP != "" {
			svc.web = s.newWebProxy(svc, port)
		}
		made.services[port] = svc
	}
	return made, nil
}

// rest lets go of the connections that were kept to services which are not in
// next, or to all if that is nil.
func (t *site) rest(next *site) {
	if t == nil {
		return
	}
	for port, svc := range t.services {
		if svc.web != nil && (next == nil || next.services[port] != svc) {
			svc.web.Transport.(*http.Transport).CloseIdleConnections()
		}
	}
}

// HandleFor is Handle for a request that came to the name with that key, which is
// Config.Key or one of SetSite's. Requests for the services of another name are
// refused: who knows one shall not find out about the others.
func (s *Server) HandleFor(ctx context.Context, key [32]byte, req Request) {
	to := (*s.sites.Load())[key]
	if to == nil {
		s.reject(req, refuse(ReasonOtherExit, "this exit does not have that name"))
		return
	}
	s.handle(ctx, to, req)
}

// siteOf is the name that a request came to.
func (s *Server) siteOf(req Request) *site {
	if b, ok := req.(*booked); ok {
		return b.site
	}
	return (*s.sites.Load())[s.key]
}
