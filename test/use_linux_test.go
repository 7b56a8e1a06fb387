package test

import (
	"bufio"
	"context"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip19"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// bothFamilies runs f with the web server's IPv4 and IPv6 address.
func bothFamilies(t *testing.T, tun *tunnel, f func(tun *tunnel, ip string)) {
	for name, ip := range map[string]string{"IPv4": world.WebIP, "IPv6": world.WebIP6} {
		t.Run(name, func(t *testing.T) { f(tun.with(t), ip) })
	}
}

func (tun *tunnel) dial(ip, port string) *net.TCPConn {
	tun.t.Helper()
	c, err := tun.Client.DialContext(tun.ctx, "tcp", net.JoinHostPort(ip, port))
	if err != nil {
		tun.t.Fatal(err)
	}
	tun.t.Cleanup(func() { c.Close() })
	if deadline, ok := tun.ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			tun.t.Fatal(err)
		}
	}
	return c.(*net.TCPConn)
}

// exitNames are the forms of the exit's name.
func exitNames(t *testing.T, npub string) map[string]string {
	t.Helper()
	_, value, err := nip19.Decode(npub)
	if err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(value.(string))
	if err != nil {
		t.Fatal(err)
	}
	b32 := func(b []byte) string {
		return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
	}
	return map[string]string{
		"npub":          npub + ".nostr",
		"key":           b32(key) + ".nostr",
		"relay and key": b32([]byte(world.RelayURL)) + "." + b32(key) + ".nostr",
	}
}

func TestPrograms(t *testing.T) {
	tun := connected(t)
	type request struct{ name, url, want string }
	requests := []request{
		{"plain name", "http://" + world.WebName, "hello from the web"},
		{"IPv4 name", "http://v4.beyond.example", "hello from the web"},
		{"IPv6 name", "http://v6.beyond.example", "hello from the web"},
		{"IPv4", "http://" + world.WebIP, "hello from the web"},
		{"IPv6", "http://[" + world.WebIP6 + "]", "hello from the web"},
	}
	for form, host := range exitNames(t, tun.key) {
		requests = append(requests, request{"exit by " + form, "http://" + host, "hello from " + world.ServiceText})
	}
	for _, r := range requests {
		t.Run("curl "+r.name, func(t *testing.T) {
			if got := tun.with(t).run("curl", "-sS", "--max-time", "30", r.url+"/"); got != r.want {
				t.Errorf("got %q", got)
			}
		})
	}
	for _, q := range []struct {
		args []string
		want string
	}{
		{[]string{world.WebName}, world.WebIP},
		{[]string{world.WebName, "AAAA"}, world.WebIP6},
		{[]string{"+tcp", world.WebName}, world.WebIP},
		{[]string{"@" + world.DNSIP, world.WebName}, world.WebIP},
		{[]string{"@8.8.8.8", world.WebName, "TXT"}, `"` + world.WebText + `"`}, // port 53 is taken whoever is asked
		{[]string{"@" + world.DNSIP, "-p", world.PortDNS2, world.WebName}, world.WebIP},
		{[]string{"@" + world.DNSIP, "-p", world.PortDNS2, "+tcp", world.WebName}, world.WebIP},
	} {
		t.Run("dig "+strings.Join(q.args, " "), func(t *testing.T) {
			if got := tun.with(t).run("dig", append([]string{"+short", "+time=10", "+tries=2"}, q.args...)...); got != q.want {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("dig a long answer", func(t *testing.T) {
		got := tun.with(t).run("dig", "+short", "+time=10", "+tries=2", "long.beyond.example", "TXT")
		if lines := strings.Count(got, "\n") + 1; lines != 40 {
			t.Errorf("got %d lines", lines)
		}
	})
	t.Run("nc", func(t *testing.T) {
		res := tun.with(t).runAny("nc", "hello\n", "-w", "15", world.WebIP, world.PortBanner)
		if want := world.Banner + "\nyou said hello\n"; res.Stdout != want {
			t.Errorf("got %q", res.Output)
		}
	})
}

// leak check 41: unknown .nostr names, whoever is asked
func TestUnknownNames(t *testing.T) {
	tun := connected(t)
	if out := tun.run("dig", "+time=10", "+tries=2", "nobody.beyond.example"); !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("an unknown name: %s", out)
	}
	if !slices.Contains(tun.Beyond.Asked(), "nobody.beyond.example A") {
		t.Error("the exit's resolver was not asked for a plain name")
	}
	for _, server := range []string{"", "@" + world.DNSIP, "@" + world.RouterIP} {
		args := slices.DeleteFunc([]string{"+time=10", "+tries=2", server, "nobody.nostr"}, func(s string) bool { return s == "" })
		out := tun.run("dig", args...)
		if !strings.Contains(out, "NXDOMAIN") || !strings.Contains(out, "SOA") {
			t.Errorf("an unknown .nostr name: %s", out)
		}
	}
	for _, asked := range slices.Concat(tun.Beyond.Asked(), tun.Uplink.Asked()) {
		if strings.Contains(asked, "nostr") {
			t.Errorf("a resolver was asked for %s", asked)
		}
	}
}

func TestResolverOfTheExitIsDead(t *testing.T) {
	tun := connected(t)
	if err := tun.Beyond.Close(); err != nil {
		t.Fatal(err)
	}
	if out := tun.run("dig", "+time=25", "+tries=1", world.WebName); !strings.Contains(out, "SERVFAIL") {
		t.Errorf("got %s", out)
	}
}

// A .nostr name leads to its exit, whichever exit everything else goes through.
func TestServiceOfAnotherExit(t *testing.T) {
	tun := connected(t)
	const address, file = "127.0.0.1:8081", "/run/other.key"
	if err := tun.ServeHTTP(tun.Exit, address, world.Handler("the other exit")); err != nil {
		t.Fatal(err)
	}
	key, err := tun.Keygen(tun.ctx, tun.Exit, file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := tun.StartExit(tun.ctx, file, world.Options{Args: []string{"--service", "80=" + address}})
	tun.started("other exit", p, err)
	for form, host := range exitNames(t, key) {
		if got := tun.run("curl", "-sS", "--max-time", "30", "http://"+host+"/"); got != "hello from the other exit" {
			t.Errorf("by %s: got %q", form, got)
		}
	}
}

func TestTransfersSideBySide(t *testing.T) {
	tun := connected(t)
	const each = 4
	var group sync.WaitGroup
	for i := range each {
		for _, ip := range []string{world.WebIP, world.WebIP6} {
			size := transferSize()/8 + int64(i)
			base := "http://" + net.JoinHostPort(ip, world.PortWeb)
			group.Go(func() {
				if err := tun.download(fmt.Sprintf("%s/file?size=%d", base, size), size); err != nil {
					t.Errorf("download from %s: %v", ip, err)
				}
			})
			group.Go(func() {
				if err := tun.upload(base+"/upload", size); err != nil {
					t.Errorf("upload to %s: %v", ip, err)
				}
			})
		}
	}
	group.Wait()
}

func (tun *tunnel) download(url string, size int64) error {
	return tun.downloadVia(tun.ctx, url, size, func(r io.Reader) io.Reader { return r })
}

// downloadVia reads what it downloads through a reader of the caller's.
func (tun *tunnel) downloadVia(ctx context.Context, url string, size int64, via func(io.Reader) io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := tun.httpClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	digest, n, err := world.Digest(via(resp.Body))
	if err == nil && (n != size || digest != world.FileDigest(size)) {
		err = fmt.Errorf("%d of %d bytes came, SHA-256 %s", n, size, digest)
	}
	return err
}

func (tun *tunnel) upload(url string, size int64) error {
	return tun.uploadFrom(tun.ctx, url, size, world.Content(size))
}

// uploadFrom uploads what a reader of world.Content gives.
func (tun *tunnel) uploadFrom(ctx context.Context, url string, size int64, from io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, from)
	if err != nil {
		return err
	}
	req.ContentLength = size
	resp, err := tun.httpClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if want := fmt.Sprintf("%d %s\n", size, world.FileDigest(size)); err == nil && string(answer) != want {
		err = fmt.Errorf("the server got %q, not %q", answer, want)
	}
	return err
}

func TestHalfClose(t *testing.T) {
	bothFamilies(t, connected(t), func(tun *tunnel, ip string) {
		const size = 300_000
		c := tun.dial(ip, world.PortDigest)
		if _, err := io.Copy(c, world.Content(size)); err != nil {
			tun.t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			tun.t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if want := fmt.Sprintf("%d %s\n", size, world.FileDigest(size)); err != nil || string(got) != want {
			tun.t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestServerSpeaksFirst(t *testing.T) {
	bothFamilies(t, connected(t), func(tun *tunnel, ip string) {
		c := tun.dial(ip, world.PortBanner)
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || line != world.Banner+"\n" {
			tun.t.Fatalf("got %q, %v before a word was said", line, err)
		}
		fmt.Fprintln(c, "hello")
		if line, err := r.ReadString('\n'); err != nil || line != "you said hello\n" {
			tun.t.Errorf("got %q, %v", line, err)
		}
	})
}

func TestReset(t *testing.T) {
	bothFamilies(t, connected(t), func(tun *tunnel, ip string) {
		c := tun.dial(ip, world.PortReset)
		if _, err := c.Write([]byte("x")); err != nil {
			tun.t.Fatal(err)
		}
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			tun.t.Errorf("got %v", err)
		}
	})
}

func TestErrorsOfConnecting(t *testing.T) {
	tun := connected(t)
	name := exitNames(t, tun.key)["npub"]
	fake := tun.run("dig", "+short", "+time=10", "+tries=2", name)
	for _, c := range []struct {
		name, ip, port string
		want           []error
	}{
		{"refused", world.WebIP, world.PortRefused, []error{syscall.ECONNREFUSED}},
		{"refused IPv6", world.WebIP6, world.PortRefused, []error{syscall.ECONNREFUSED}},
		{"no route", world.UnroutedIP, "22", []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH}},
		{"denied by the exit", "10.77.3.1", "22", []error{syscall.EHOSTUNREACH, syscall.EACCES, syscall.ECONNREFUSED}},
		{"not a service of the exit", fake, "81", []error{syscall.ECONNREFUSED}},
		{"a fake address of nobody", "198.18.77.7", "22", []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := tun.Client.DialContext(tun.ctx, "tcp", net.JoinHostPort(c.ip, c.port))
			if err == nil {
				conn.Close()
			}
			if !slices.ContainsFunc(c.want, func(want error) bool { return errors.Is(err, want) }) {
				t.Errorf("got %v", err)
			}
		})
	}
	if res := tun.runAny("curl", "", "-sS", "--max-time", "30", "http://"+world.WebName+":"+world.PortRefused); res.Code != 7 {
		t.Errorf("curl ended with code %d: %s", res.Code, res.Output)
	}
	if res := tun.runAny("nc", "", "-v", "-w", "15", world.WebIP, world.PortRefused); res.Code == 0 || !strings.Contains(res.Output, "refused") {
		t.Errorf("nc ended with code %d: %s", res.Code, res.Output)
	}
}

// Where the client speaks first, a connection is accepted before the exit has
// tried, and a refusal is a reset.
func TestRefusalAfterAnEarlyConnection(t *testing.T) {
	tun := connected(t)
	for name, ip := range map[string]string{"no route": world.UnroutedIP, "denied by the exit": "10.77.3.1"} {
		t.Run(name, func(t *testing.T) {
			conn := tun.dial(ip, "80")
			if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		})
	}
}

func TestManyShortConnections(t *testing.T) {
	tun := connected(t)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for range 15 {
				if got, err := tun.get("http://" + world.WebIP + "/"); err != nil || got != "hello from the web" {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		})
	}
	workers.Wait()
}
