package world

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Zone maps lower-case names without the last dot to what is known of them.
type Zone map[string]Records

// Records are a name's.
type Records struct {
	Addresses []netip.Addr
	Text      []string
}

// A DNSServer answers from a zone, over UDP and TCP, and remembers what it was
// asked. Unknown names get NXDOMAIN.
type DNSServer struct {
	packets []net.PacketConn
	streams []*tcpServer
	running sync.WaitGroup
	closing sync.Once

	mu    sync.Mutex
	zone  Zone
	asked []string
}

// ServeDNS answers on the sockets until Close, which closes them.
func ServeDNS(zone Zone, packets []net.PacketConn, streams []net.Listener) *DNSServer {
	s := &DNSServer{zone: zone, packets: packets}
	for _, p := range packets {
		s.running.Go(func() { s.servePacket(p) })
	}
	for _, l := range streams {
		s.streams = append(s.streams, serveTCP(l, s.serveConn))
	}
	return s
}

// Replace gives the server another zone.
func (s *DNSServer) Replace(zone Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = zone
}

// Asked lists the questions so far, as "name TYPE".
func (s *DNSServer) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Close ends the server and waits for it. A second call does nothing.
func (s *DNSServer) Close() (err error) {
	s.closing.Do(func() { err = s.close() })
	return err
}

func (s *DNSServer) close() error {
	var errs []error
	for _, p := range s.packets {
		errs = append(errs, p.Close())
	}
	for _, l := range s.streams {
		errs = append(errs, l.Close())
	}
	s.running.Wait()
	return errors.Join(errs...)
}

func (s *DNSServer) servePacket(p net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := p.ReadFrom(buf)
		if err != nil {
			return
		}
		answer, limit := s.answer(buf[:n])
		if len(answer) > limit {
			answer = truncated(answer)
		}
		if answer != nil {
			_, _ = p.WriteTo(answer, from) // a datagram may get lost
		}
	}
}

func (s *DNSServer) serveConn(c net.Conn) error {
	for {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return err
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return err
		}
		answer, _ := s.answer(query)
		if answer == nil {
			return nil
		}
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := c.Write(append(framed, answer...)); err != nil {
			return err
		}
	}
}

// answer makes the answer to a query, nil when it is none, and the largest size
// that the asker takes over UDP.
func (s *DNSServer) answer(query []byte) (answer []byte, limit int) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil || header.Response {
		return nil, 0
	}
	q, err := p.Question()
	if err != nil {
		return nil, 0
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	s.mu.Lock()
	s.asked = append(s.asked, name+" "+strings.TrimPrefix(q.Type.String(), "Type"))
	records, known := s.zone[name]
	s.mu.Unlock()
	reply := dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true}
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	answer, err = build(reply, q, records)
	if err != nil {
		return nil, 0
	}
	return answer, udpSize(&p)
}

func build(header dnsmessage.Header, q dnsmessage.Question, records Records) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, header)
	errs := []error{b.StartQuestions(), b.Question(q), b.StartAnswers()}
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
	for _, a := range records.Addresses {
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			errs = append(errs, b.AResource(h, dnsmessage.AResource{A: a.As4()}))
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			errs = append(errs, b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()}))
		}
	}
	if q.Type == dnsmessage.TypeTXT {
		for _, t := range records.Text {
			errs = append(errs, b.TXTResource(h, dnsmessage.TXTResource{TXT: []string{t}}))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return b.Finish()
}

// udpSize reads the OPT record, after the question.
func udpSize(p *dnsmessage.Parser) int {
	if p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return 512
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return 512
		}
		if h.Type == dnsmessage.TypeOPT {
			return max(512, int(h.Class))
		}
		if p.SkipAdditional() != nil {
			return 512
		}
	}
}

// truncated keeps the header with the bit that asks to come back over TCP, and
// the question.
func truncated(answer []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(answer)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	header.Truncated = true
	short, err := build(header, q, Records{})
	if err != nil {
		return nil
	}
	return short
}
