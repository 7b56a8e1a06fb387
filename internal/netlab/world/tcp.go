package world

import (
	"net"
	"sync"
)

// tcpServer answers every connection to a listener.
type tcpServer struct {
	talk     func(net.Conn) error
	listener net.Listener
	running  sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool // nil when closed
}

// serveTCP answers with talk until Close, which closes the listener. The
// connection is closed after talk.
func serveTCP(l net.Listener, talk func(net.Conn) error) *tcpServer {
	s := &tcpServer{talk: talk, listener: l, conns: map[net.Conn]bool{}}
	s.running.Go(s.serve)
	return s
}

func (s *tcpServer) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.conns == nil {
			c.Close()
		} else {
			s.conns[c] = true
			s.running.Go(func() { s.handle(c) })
		}
		s.mu.Unlock()
	}
}

func (s *tcpServer) handle(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	_ = s.talk(c) // what went wrong shows at the other side
}

func (s *tcpServer) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.running.Wait()
	return err
}
