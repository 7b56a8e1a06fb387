package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

const (
	pageRequests    = 30
	pageConnections = 6
	pageObject      = 20_000 // bytes of each answer
	pages           = 5      // the median counts
	relayDelay      = 25 * time.Millisecond
	delayPort       = "7790"
)

// measurePage loads pages through a relay that is some way off.
func (b *bench) measurePage(ctx context.Context) error {
	l, err := b.Relay.Listen("tcp", world.RelayIP+":"+delayPort)
	if err != nil {
		return err
	}
	p := &delayer{Listener: l, dial: func() (net.Conn, error) {
		return b.Relay.DialContext(ctx, "tcp", world.RelayIP+":"+world.RelayPort)
	}}
	b.Keep(l)
	go p.serve()

	file, err := os.CreateTemp("", "nws-bench-*.toml")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString("[up]\nearly_ports = []\n"); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	url := "ws://" + world.RelayIP + ":" + delayPort
	for _, v := range []struct {
		name string
		args []string
	}{{"pageload_ms", nil}, {"pageload_ms_no_early", []string{"--config", file.Name()}}} {
		if err := b.connect(ctx, tunnel{relays: []string{url}, up: v.args}); err != nil {
			return err
		}
		ms, _, err := b.result(ctx, b.Client, "page", "http://"+world.WebIP+"/file?size="+fmt.Sprint(pageObject))
		if err != nil {
			return err
		}
		figure(v.name, ms, "ms")
		if err := b.disconnect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// page loads pages, each over connections of its own, and prints the median
// time in milliseconds. Argument: the URL of all requests.
func page(ctx context.Context, args []string) error {
	var times []float64
	for range pages {
		took, err := loadPage(ctx, args[0])
		if err != nil {
			return err
		}
		times = append(times, float64(took.Microseconds())/1e3)
	}
	fmt.Println(median(times), len(times))
	return nil
}

func loadPage(ctx context.Context, url string) (time.Duration, error) {
	transport := &http.Transport{MaxConnsPerHost: pageConnections, MaxIdleConnsPerHost: pageConnections}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	errs := make(chan error, pageRequests)
	start := time.Now()
	for range pageRequests {
		go func() { errs <- get(ctx, client, url) }()
	}
	for range pageRequests {
		if err := <-errs; err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != pageObject {
		err = fmt.Errorf("%d bytes of %d", n, pageObject)
	}
	return err
}

// delayer passes connections on to the relay, every byte later.
type delayer struct {
	net.Listener
	dial func() (net.Conn, error)
}

func (d *delayer) serve() {
	for {
		near, err := d.Accept()
		if err != nil {
			return
		}
		far, err := d.dial()
		if err != nil {
			near.Close()
			continue
		}
		var once sync.Once
		end := func() { near.Close(); far.Close() }
		go func() { late(far, near); once.Do(end) }()
		go func() { late(near, far); once.Do(end) }()
	}
}

// late copies src to dst until either ends.
func late(dst io.Writer, src io.Reader) {
	type piece struct {
		due  time.Time
		data []byte
	}
	line := make(chan piece, 1024)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range line {
			time.Sleep(time.Until(p.due))
			if _, err := dst.Write(p.data); err != nil {
				return
			}
		}
	}()
	for {
		buf := make([]byte, 64<<10)
		n, err := src.Read(buf)
		select {
		case line <- piece{time.Now().Add(relayDelay), buf[:n]}:
		case <-done:
			return
		}
		if err != nil {
			close(line)
			<-done
			return
		}
	}
}
