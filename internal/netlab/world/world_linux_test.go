package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newWorld(t *testing.T) (*World, context.Context) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	w, err := New("/bin/false")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return w, ctx
}

func resolver(h *netlab.Host, server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.DialContext(ctx, network, net.JoinHostPort(server, PortDNS))
	}}
}

func TestResolvers(t *testing.T) {
	w, ctx := newWorld(t)
	uplink, beyond := resolver(w.Client, RouterIP), resolver(w.Exit, DNSIP)
	if got, err := uplink.LookupHost(ctx, RelayName+"."); err != nil || len(got) != 2 {
		t.Errorf("the uplink's resolver says %v, %v of the relay", got, err)
	}
	var notFound *net.DNSError
	if got, err := uplink.LookupHost(ctx, WebName+"."); !errors.As(err, &notFound) || !notFound.IsNotFound {
		t.Errorf("the uplink's resolver says %v, %v of the web", got, err)
	}
	got, err := beyond.LookupHost(ctx, WebName+".")
	if err != nil || strings.Join(got, " ") != WebIP+" "+WebIP6 {
		t.Errorf("the exit's resolver says %v, %v", got, err)
	}
	texts, err := beyond.LookupTXT(ctx, "long.beyond.example.")
	if err != nil || len(texts) != 40 {
		t.Errorf("a long answer has %d texts, %v", len(texts), err)
	}
	if asked := strings.Join(w.Uplink.Asked(), ","); !strings.Contains(asked, WebName+" AAAA") || strings.Contains(asked, "long") {
		t.Errorf("the uplink's resolver was asked %s", asked)
	}
}

func TestWeb(t *testing.T) {
	w, ctx := newWorld(t)
	client := &http.Client{Transport: &http.Transport{DialContext: w.Client.DialContext, DisableKeepAlives: true}}
	for _, ip := range []string{WebIP, WebIP6} {
		url := "http://" + net.JoinHostPort(ip, PortWeb)
		resp, err := client.Get(url + "/file?size=100000")
		if err != nil {
			t.Fatal(err)
		}
		digest, n, err := Digest(resp.Body)
		resp.Body.Close()
		if want := FileDigest(100000); err != nil || n != 100000 || digest != want {
			t.Errorf("got %d bytes, %s, %v; want %s", n, digest, err, want)
		}
		resp, err = client.Post(url+"/upload", "text/plain", strings.NewReader("hi"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want, _, _ := Digest(strings.NewReader("hi")); err != nil || string(got) != "2 "+want+"\n" {
			t.Errorf("upload: got %q, %v", got, err)
		}
		c, err := w.Client.DialContext(ctx, "tcp", net.JoinHostPort(ip, PortRefused))
		if err == nil {
			c.Close()
			t.Error("the refused port is open")
		}
	}
}

func TestSmallServers(t *testing.T) {
	w, ctx := newWorld(t)
	sum, _, _ := Digest(strings.NewReader("hello\n"))
	for port, want := range map[string]string{
		PortEcho: "hello\n", PortDigest: "6 " + sum + "\n", PortBanner: Banner + "\nyou said hello\n", PortReset: "reset",
	} {
		c, err := w.Client.DialContext(ctx, "tcp", WebIP+":"+port)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(c, "hello")
		if err := c.(*net.TCPConn).CloseWrite(); err != nil && want != "reset" { // which may have come already
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil {
			got = []byte("reset")
		}
		c.Close()
		if string(got) != want {
			t.Errorf("port %s answers %q, %v; want %q", port, got, err, want)
		}
	}
}
