package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/doctor"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// outTimeout bounds what the exit is asked to do. Exits give a dial ten seconds.
const outTimeout = 8 * time.Second

// examineExit makes a session of its own with the exit, and uses it.
func (e *examination) examineExit(ctx context.Context, exit name.Name) {
	var usable []string
	for i := range e.found.Relays {
		if e.found.Relays[i].Up() {
			usable = append(usable, e.found.Relays[i].URL)
		}
	}
	if len(usable) == 0 {
		return // the relays' lines say why
	}
	x := e.newExitExamination(ctx, usable)
	defer x.close()
	shake := try(ctx, doctor.HopHandshake, connectTimeout, func(ctx context.Context) (string, error) {
		return x.shake(ctx, exit, &e.cfg.Up, e.credentials)
	})
	steps := &e.found.Exit.Steps
	*steps = append(*steps, shake)
	if shake.Err != nil {
		return
	}
	e.found.Exit.Name = x.link.Exit().NPub()
	*steps = append(*steps,
		try(ctx, doctor.HopResolver, outTimeout, func(ctx context.Context) (string, error) { return x.resolve(ctx, e.opts.target) }),
		try(ctx, doctor.HopConnect, outTimeout, func(ctx context.Context) (string, error) {
			conn, err := x.link.DialContext(ctx, "tcp", e.opts.target)
			if err != nil {
				return "", err
			}
			return "to " + e.opts.target, conn.Close()
		}))
}

// exitExamination is a link to the exit, for the examination only.
type exitExamination struct {
	hub       *nostrlink.Hub
	directory *nostrlink.Directory
	relays    []string
	chooser   *nostrlink.Chooser // or nil
	link      *nostrlink.Link

	ctx     context.Context // of what runs until close
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (e *examination) newExitExamination(ctx context.Context, relays []string) *exitExamination {
	x := &exitExamination{relays: relays}
	x.ctx, x.cancel = context.WithCancel(ctx)
	x.hub = nostrlink.NewHub(nostrlink.HubOptions{
		Relay: relay.Options{DialContext: e.dialer.DialContext}, AuthKey: e.relayKey, AuthRelays: e.members,
	})
	x.directory = x.hub.NewDirectory(relays, nil)
	return x
}

func (x *exitExamination) close() {
	x.cancel()
	if x.chooser != nil {
		x.chooser.Close()
	}
	x.running.Wait()
	x.hub.Close()
}

// shake connects to the exit, or chooses one.
func (x *exitExamination) shake(ctx context.Context, exit name.Name, up *config.Up, credentials credentialsFunc) (string, error) {
	opts := nostrlink.LinkOptions{Agent: "nws-vpn " + buildVersion(), Credentials: credentials}
	speaks(&opts, up)
	if err := x.connect(ctx, exit, up, opts); err != nil {
		return "", err
	}
	s := x.link.Status()
	if s.Plain {
		return "by NWS as it is written, without a session", nil
	}
	return fmt.Sprintf("%s answers by %s", s.Agent, s.Relay), nil
}

func (x *exitExamination) connect(ctx context.Context, exit name.Name, up *config.Up, opts nostrlink.LinkOptions) error {
	if up.Exit == config.AutoExit {
		rule, err := autoRule(up)
		if err != nil {
			return err
		}
		x.chooser = x.directory.NewChooser(rule, opts)
		x.link, err = x.chooser.Start(ctx)
		return err
	}
	key := envelope.PublicKey(exit.Key)
	x.link = x.hub.NewLink(key, x.relays, opts)
	x.running.Go(func() { x.link.Serve(x.ctx) })
	err := x.link.Connect(ctx)
	if err == nil {
		return nil
	}
	looking, cancel := context.WithTimeout(x.ctx, lookUpTimeout)
	defer cancel()
	if at := x.directory.RelaysOf(looking, key); !x.directory.Own(at) {
		return fmt.Errorf("%w; the exit itself says that it listens on %s", err, strings.Join(at, ", "))
	}
	return err
}

// resolve asks the exit's resolver for the target's address.
func (x *exitExamination) resolve(ctx context.Context, target string) (string, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		host = "example.com"
	}
	q, err := dnsmessage.NewName(strings.TrimSuffix(host, ".") + ".")
	if err != nil {
		return "", fmt.Errorf("%q is no name: %w", host, err)
	}
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: q, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	conn, err := x.link.DialContext(ctx, "dns", "")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	answer, err := exchange(conn, &query)
	if err != nil {
		return "", fmt.Errorf("the exit's resolver does not answer: %w", err)
	}
	switch answer.RCode {
	case dnsmessage.RCodeSuccess:
		if n := len(answer.Answers); n != 1 {
			return fmt.Sprintf("%s: %d answers", host, n), nil
		}
		return host + ": 1 answer", nil
	case dnsmessage.RCodeNameError:
		return host + ": there is no such name, the exit's resolver says", nil
	}
	return "", fmt.Errorf("the exit's resolver answers %v", answer.RCode)
}

// exchange asks one question of DNS over a stream (RFC 1035, 4.2.2).
func exchange(conn io.ReadWriter, query *dnsmessage.Message) (*dnsmessage.Message, error) {
	framed, err := query.AppendPack(make([]byte, 2, 512))
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(framed, uint16(len(framed)-2))
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	packed := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, packed); err != nil {
		return nil, err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(packed); err != nil {
		return nil, fmt.Errorf("it is no DNS answer: %w", err)
	}
	if answer.ID != query.ID || !answer.Response {
		return nil, errors.New("it is the answer to another question")
	}
	return &answer, nil
}
