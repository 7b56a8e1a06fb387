package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	floodRate = 5000            // greetings a second, each of a key of its own
	floodTime = 5 * time.Second // of a round
	// floodDemand is what the client downloads, in bytes a second: the exit is
	// measured, and not what is left of two processors for whoever makes and
	// passes on the flood.
	floodDemand = 4 << 20
)

// measureFlood measures on loopback what is left to a client that is let in when
// strangers flood the exit with greetings.
func measureFlood(ctx context.Context, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "nws-flood-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	url, _, stopRelay, err := startLoopback(ctx, []string{binary, "relay", "--listen", "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer stopRelay()
	key, stopExit, err := startExitOn(ctx, binary, dir, url)
	if err != nil {
		return err
	}
	defer stopExit()
	d, err := newDemand(ctx, url, key)
	if err != nil {
		return err
	}
	defer d.close()
	var ratios []float64
	for range rounds {
		flood, err := prepareFlood(ctx, url, key)
		if err != nil {
			return err
		}
		alone, err := d.download(ctx)
		if err == nil {
			err = flood.begin()
		}
		var under float64
		if err == nil {
			under, err = d.download(ctx)
		}
		if err = errors.Join(err, flood.end()); err != nil {
			return err
		}
		ratios = append(ratios, under/alone)
	}
	figure("hello_flood_ratio", median(ratios), "")
	return nil
}

// startExitOn starts an exit on a relay, with a key and a state in dir.
func startExitOn(ctx context.Context, binary, dir, url string) (key envelope.PublicKey, stop func(), err error) {
	file := filepath.Join(dir, "key")
	npub, err := exec.CommandContext(ctx, binary, "keygen", file).Output()
	if err != nil {
		return key, nil, err
	}
	if key, err = envelope.ParsePublicKey(strings.TrimSpace(string(npub))); err != nil {
		return key, nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "exit", "--key", file, "--relay", url, "--allow-private", "127.0.0.0/8", "--allow-root")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return key, nil, err
	}
	if err := cmd.Start(); err != nil {
		return key, nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "ready") {
			go io.Copy(io.Discard, out)
			return key, stop, nil
		}
	}
	stop()
	return key, nil, errors.New("the exit ended before it was ready")
}

// demand is a client with a server that it downloads from.
type demand struct {
	hub     *nostrlink.Hub
	link    *nostrlink.Link
	server  net.Listener
	stop    context.CancelFunc
	serving sync.WaitGroup
}

func newDemand(ctx context.Context, url string, key envelope.PublicKey) (*demand, error) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &demand{hub: nostrlink.NewHub(nostrlink.HubOptions{}), server: server}
	d.link = d.hub.NewLink(key, []string{url}, nostrlink.LinkOptions{Mode: nostrlink.SessionOnly})
	serving, stop := context.WithCancel(ctx)
	d.stop = stop
	d.serving.Go(func() { d.link.Serve(serving) })
	d.serving.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			d.serving.Go(func() { sendPaced(c) })
		}
	})
	if err := d.link.Connect(ctx); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// sendPaced sends what is in demand until the other end has enough. What could not
// be sent in its time is not made up for.
func sendPaced(c net.Conn) {
	defer c.Close()
	const pieces = 50 // a second
	piece := make([]byte, floodDemand/pieces)
	tick := time.NewTicker(time.Second / pieces)
	defer tick.Stop()
	for {
		if _, err := c.Write(piece); err != nil {
			return
		}
		<-tick.C
	}
}

func (d *demand) close() {
	d.server.Close()
	d.stop()
	d.hub.Close()
	d.serving.Wait()
}

// download returns the bytes a second that come in a round.
func (d *demand) download(ctx context.Context) (float64, error) {
	c, err := d.link.DialContext(ctx, "tcp", d.server.Addr().String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	begun := time.Now()
	if err := c.SetDeadline(begun.Add(floodTime)); err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, c)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("the download ended after %d bytes: %w", n, err)
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}

// flooder is a process that sends greetings.
type flooder struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// prepareFlood starts it and waits until it has signed all it will send.
func prepareFlood(ctx context.Context, url string, key envelope.PublicKey) (*flooder, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &flooder{cmd: exec.CommandContext(ctx, self, "generator", "flood", url, key.Hex())}
	f.cmd.Stderr = os.Stderr
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	f.lines = bufio.NewScanner(out)
	if !f.lines.Scan() {
		return nil, errors.Join(errors.New("the flood cannot begin"), f.cmd.Wait())
	}
	return f, nil
}

func (f *flooder) begin() error {
	_, err := fmt.Fprintln(f.in, "go")
	return err
}

// end waits for it, and fails when it was no flood.
func (f *flooder) end() error {
	f.in.Close()
	var rate float64
	for f.lines.Scan() {
		rate, _ = strconv.ParseFloat(f.lines.Text(), 64)
	}
	if err := f.cmd.Wait(); err != nil {
		return err
	}
	if rate < 0.8*floodRate {
		fmt.Fprintf(os.Stderr, "bench: hello_flood_ratio: only %.0f greetings a second could be sent\n", rate)
	}
	return nil
}

// flood is the generator: signs greetings, and sends them when it is told to. Its
// result is how many a second it has sent.
func flood(ctx context.Context, args []string) error {
	exit, err := envelope.ParsePublicKey(args[1])
	if err != nil {
		return err
	}
	events := make([]relayEvent, floodRate*int(floodTime/time.Second))
	var signing sync.WaitGroup
	failed := make(chan error, 2)
	for half := range 2 {
		signing.Go(func() {
			for i := half; i < len(events); i += 2 {
				e, err := greetingOf(exit)
				if err != nil {
					failed <- err
					return
				}
				events[i] = e
			}
		})
	}
	signing.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	c, err := relay.Dial(ctx, args[0], relay.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("signed")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return nil // it is not wanted any more
	}
	begun := time.Now()
	for i, e := range events {
		if due := begun.Add(time.Duration(i) * time.Second / floodRate); i%50 == 0 {
			time.Sleep(time.Until(due))
		}
		if time.Since(begun) > floodTime {
			break
		}
		if err := c.Publish(ctx, e.raw, e.id, nil); err != nil {
			return err
		}
		events[i].raw = nil
		if i == len(events)-1 || time.Since(begun) > floodTime-10*time.Millisecond {
			fmt.Printf("%.0f\n", float64(i+1)/time.Since(begun).Seconds())
		}
	}
	return nil
}

// greetingOf is a HELLO of a new key.
func greetingOf(exit envelope.PublicKey) (e relayEvent, err error) {
	secret, err := envelope.GenerateSecretKey()
	if err != nil {
		return e, err
	}
	session, err := envelope.GenerateSecretKey()
	if err != nil {
		return e, err
	}
	hello := &wire.Hello{
		Versions: []int{wire.Version}, Time: time.Now().Unix(), SessionKey: wire.PublicKey(session.Public()),
		MaxPacket: wire.MaxMessage, Window: 1 << 20, StreamWindow: 1 << 20,
	}
	rand.Read(hello.Nonce[:])
	plain, err := wire.AppendMessage(nil, &wire.Message{Type: wire.TypeHello, Hello: hello})
	if err != nil {
		return e, err
	}
	key, err := envelope.Conversation(secret, exit)
	if err != nil {
		return e, err
	}
	e.raw, e.id, err = envelope.NewSealer(secret, exit, key).Seal(nil, plain, time.Now())
	return e, err
}
