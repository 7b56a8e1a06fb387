package relayd

import (
	"net"
	"net/http"
	"sync"
)

// ConnState is for the ConnState of an http.Server. It bounds the connections
// that have not become clients yet, such as those in a TLS handshake: as many as
// there may be clients, together and of one address. What goes beyond is closed.
func (s *Server) ConnState() func(net.Conn, http.ConnState) {
	d := &doorway{limits: s.limits, waiting: make(map[source]int)}
	return d.changed
}

type doorway struct {
	limits func() *Limits

	mu      sync.Mutex
	all     int
	waiting map[source]int
}

func (d *doorway) changed(conn net.Conn, state http.ConnState) {
	from := sourceOf(&http.Request{RemoteAddr: conn.RemoteAddr().String()}, false)
	switch state {
	case http.StateNew:
		if !d.enter(from) {
			conn.Close() // its end is noticed, and reported as one
		}
	case http.StateHijacked, http.StateClosed:
		d.leave(from)
	}
}

// enter counts a connection in and reports whether there is room for it.
func (d *doorway) enter(from source) bool {
	limits := d.limits()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all++
	d.waiting[from]++
	return d.all <= limits.MaxConnections && (!from.bounded() || d.waiting[from] <= limits.MaxPerAddress)
}

func (d *doorway) leave(from source) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.waiting[from]--; d.waiting[from] == 0 {
		delete(d.waiting, from)
	}
}
