package compat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// What passes first on the connection of a CONNECTR: the exit writes the UUID in
// text, the entry answers with one byte, and then both are the stream's ends.
const (
	uuidText    = 36
	reverseTake = 0x01
	// reverseTimeout bounds all of that, dialing included.
	reverseTimeout = 10 * time.Second
)

// connectReverse makes a request of a CONNECTR.
func (e *Exit) connectReverse(id wire.UUID, in Incoming) {
	address, err := requested(in.Message.Destination)
	if err != nil {
		e.malformed.Add(1)
		return
	}
	if e.dialBack == nil {
		e.refused.Add(1)
		return
	}
	if err := e.checkBack(in.Message.EntryPublicAddress); err != nil {
		e.refused.Add(1)
		e.opts.Log.Debug("CONNECTR refused", "err", err)
		return
	}
	e.mu.Lock()
	admitted := e.admit(id, in)
	e.mu.Unlock()
	if !admitted {
		return
	}
	e.queue(&Request{exit: e, id: id, peer: in.From, address: address, back: in.Message.EntryPublicAddress})
}

// checkBack refuses what is plainly no public address. A name's addresses are
// DialBack's to judge.
func (e *Exit) checkBack(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || port == "0" {
		return errors.New("the entry's address is not of the form host:port")
	}
	a, err := netip.ParseAddr(host)
	if err != nil || e.allowPrivate {
		return nil
	}
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return errors.New("the entry's address is not public")
	}
	return nil
}

// connectBack makes the connection that an entry asked for.
func (e *Exit) connectBack(r *Request) (net.Conn, error) {
	select {
	case e.reversing <- struct{}{}:
		defer func() { <-e.reversing }()
	default:
		e.busy.Add(1)
		return nil, &wire.Error{Code: wire.CodeBusy, Text: "too many connections to entries are being made"}
	}
	ctx, cancel := context.WithTimeout(e.ctx, reverseTimeout)
	defer cancel()
	conn, err := e.dialBack(ctx, "tcp", r.back)
	if err != nil {
		e.reverseFailed.Add(1)
		return nil, fmt.Errorf("compat: connect back to the entry: %w", err)
	}
	if err := introduce(ctx, conn, r.id); err != nil {
		e.reverseFailed.Add(1)
		conn.Close()
		return nil, fmt.Errorf("compat: connect back to the entry: %w", err)
	}
	e.reversed.Add(1)
	return conn, nil
}

// introduce says which stream the connection is, and waits for the entry to
// take it.
func introduce(ctx context.Context, conn net.Conn, id wire.UUID) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write([]byte(id.String())); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return err
	}
	if answer[0] != reverseTake {
		return errors.New("the entry does not want it")
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return nil
}

// reverseAgain is how long CONNECTR is not tried after it failed. Nothing tells
// an exit that cannot reach us from one that does not want to.
const reverseAgain = time.Minute

// dialReverse has the exit connect to us.
func (e *Entry) dialReverse(caller context.Context, dest string) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(caller, reverseTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	defer func() {
		if err != nil && caller.Err() == nil {
			e.reverseFailed.Add(1)
			e.down.Store(e.now().Add(reverseAgain).UnixNano())
		}
	}()
	id := e.newID()
	plain, err := wire.AppendMessage(nil, &wire.Message{
		Key: id.String(), Type: wire.TypeConnectReverse, Destination: dest, EntryPublicAddress: e.reverse.address,
	})
	if err != nil {
		return nil, err
	}
	x, err := e.reverse.expect(id)
	if err != nil {
		return nil, err
	}
	if err := e.sender.Send(ctx, e.exit, plain); err != nil {
		cancel()
		x.wait(ctx)
		return nil, &wire.Error{Code: wire.CodeNetUnreachable, Text: "no relay took a message: " + err.Error()}
	}
	if conn, err = x.wait(ctx); err == nil {
		e.reversed.Add(1)
	}
	return conn, err
}
