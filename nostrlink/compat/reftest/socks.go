package reftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// ServeSOCKS is the entry's SOCKS5 server (RFC 1928), for a program such as curl
// in front of it. It closes l, and returns when ctx has ended and everything
// with it.
func (n *Entry) ServeSOCKS(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() {
			hangUp := context.AfterFunc(ctx, func() { client.Close() })
			defer hangUp()
			n.serveClient(client)
		})
	}
}

func (n *Entry) serveClient(client net.Conn) {
	defer client.Close()
	dest, err := readRequest(client)
	if err != nil {
		return
	}
	target, err := n.Dial(dest)
	if err != nil {
		client.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	defer target.Close()
	if _, err := client.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 36, 117}); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { proxy(target, client) })
	both.Go(func() { proxy(client, target) })
	both.Wait()
}

// readRequest reads a greeting and a CONNECT, and returns the destination as the
// reference sends it: names are resolved here, but for those under .nostr, which
// lose their port.
func readRequest(client net.Conn) (dest string, err error) {
	var head [4]byte
	if _, err := io.ReadFull(client, head[:2]); err != nil {
		return "", err
	}
	if _, err := io.CopyN(io.Discard, client, int64(head[1])); err != nil {
		return "", err
	}
	if _, err := client.Write([]byte{5, 0}); err != nil { // no authentication
		return "", err
	}
	if _, err := io.ReadFull(client, head[:]); err != nil {
		return "", err
	}
	if head[0] != 5 || head[1] != 1 {
		return "", errors.New("reftest: no CONNECT of SOCKS5")
	}
	size := map[byte]int{1: 4, 4: 16}[head[3]]
	if head[3] == 3 {
		if _, err := io.ReadFull(client, head[:1]); err != nil {
			return "", err
		}
		size = int(head[0])
	}
	body := make([]byte, size+2)
	if _, err := io.ReadFull(client, body); err != nil {
		return "", err
	}
	port := strconv.Itoa(int(body[size])<<8 | int(body[size+1]))
	if head[3] != 3 {
		return net.JoinHostPort(net.IP(body[:size]).String(), port), nil
	}
	host := string(body[:size])
	if strings.HasSuffix(host, ".nostr") {
		return host, nil
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		client.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
		return "", fmt.Errorf("reftest: %w", err)
	}
	return net.JoinHostPort(ip.String(), port), nil
}
