package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// use lets the client's programs use the tunnel.
func (d *demo) use(ctx context.Context) {
	d.heading("Use: the client's own programs, which know nothing of it")
	bounded := func(what string, limit time.Duration, f func(context.Context) (string, error)) {
		if ctx.Err() != nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		d.step(what, func() (string, error) { return f(ctx) })
	}
	for _, c := range d.checks() {
		bounded(c.what, patience, c.run)
	}
	bounded("curl a file, SHA-256 compared", longPatience, d.download)
	bounded("curl sends it back, SHA-256 compared", longPatience, d.upload)
	bounded("curl it again, its relay is killed meanwhile", longPatience, d.survive)
}

type check struct {
	what string
	run  func(context.Context) (detail string, err error)
}

func (d *demo) checks() []check {
	page := func(url, want string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			got, err := d.tools.get(ctx, url)
			if err == nil && got != "hello from "+want {
				err = fmt.Errorf("it answers %q", got)
			}
			return "answered by " + want, err
		}
	}
	answer := func(server, port, name, kind, want string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			got, err := d.tools.lookup(ctx, server, port, name, kind)
			if err == nil && strings.Trim(got, `"`) != want {
				err = fmt.Errorf("it answers %q, not %q", got, want)
			}
			return got, err
		}
	}
	return []check{
		{"curl http://" + shorten(d.exitKey, 16) + ".nostr", page("http://"+d.exitKey+".nostr/", world.ServiceText)},
		{"curl http://" + world.WebName, page("http://"+world.WebName+"/", "the web")},
		{"curl http://" + world.WebIP, page("http://"+world.WebIP+"/", "the web")},
		{"curl http://[" + world.WebIP6 + "]", page("http://["+world.WebIP6+"]/", "the web")},
		{"dig " + world.WebName, answer("", "", world.WebName, "A", world.WebIP)},
		{"dig TXT " + world.WebName, answer("", "", world.WebName, "TXT", world.WebText)},
		{"dig @" + world.DNSIP + " " + world.WebName, answer(world.DNSIP, world.PortDNS, world.WebName, "A", world.WebIP)},
		{"dig @" + world.DNSIP + " -p " + world.PortDNS2 + " (plain UDP)", answer(world.DNSIP, world.PortDNS2, world.WebName, "A", world.WebIP)},
		{"ping " + world.WebIP, d.ping},
		{"nc " + world.WebIP + " " + world.PortBanner + " (the server speaks first)", d.banner},
		{"nc " + world.WebIP + " " + world.PortRefused + " (nobody listens)", d.refused},
		{"curl http://" + world.WebName + ":" + world.PortRefused + " (nobody listens)", d.refusedPage},
	}
}

func (d *demo) ping(ctx context.Context) (string, error) {
	_, err := d.tools.mustRun(ctx, "ping", []string{"-n", "-c", "1", "-W", "10", world.WebIP}, []string{"ping", world.WebIP}, "")
	return "answered, by the exit's own ping", err
}

func (d *demo) banner(ctx context.Context) (string, error) {
	res, err := d.tools.talk(ctx, world.WebIP, world.PortBanner, "hello\n")
	if err == nil && res.Stdout != world.Banner+"\nyou said hello\n" {
		err = fmt.Errorf("it answers %q", res.Output)
	}
	return `"` + world.Banner + `"`, err
}

func (d *demo) refused(ctx context.Context) (string, error) {
	res, err := d.tools.talk(ctx, world.WebIP, world.PortRefused, "")
	if err == nil && (res.Code == 0 || !strings.Contains(strings.ToLower(res.Output), "connection refused")) {
		err = fmt.Errorf("nc ended with code %d: %s", res.Code, res.Output)
	}
	return "connection refused", err
}

func (d *demo) refusedPage(ctx context.Context) (string, error) {
	url := "http://" + world.WebName + ":" + world.PortRefused + "/"
	res, err := d.tools.run(ctx, "curl", []string{"-sS", "--max-time", "30", url}, []string{"http", url}, "")
	if err == nil && res.Code != 7 {
		err = fmt.Errorf("curl ended with code %d: %s", res.Code, res.Output)
	}
	return "exit code 7: could not connect", err
}

// The file that is fetched and sent back, in the client's own /run.
const filePath = "/run/file"

func (d *demo) download(ctx context.Context) (string, error) {
	took, err := d.tools.download(ctx, "http://"+world.WebName+"/file", filePath)
	if err != nil {
		return "", err
	}
	var digest string
	err = d.world.Client.Do(func() error {
		f, err := os.Open(filePath)
		if err != nil {
			return err
		}
		defer f.Close()
		digest, _, err = world.Digest(f)
		return err
	})
	if err == nil && digest != world.FileDigest(world.FileSize) {
		err = errors.New("what arrived is not what was sent")
	}
	return rate(world.FileSize, took), err
}

func (d *demo) upload(ctx context.Context) (string, error) {
	if err := d.world.Client.Do(makeFile); err != nil {
		return "", err
	}
	answer, took, err := d.tools.upload(ctx, "http://"+world.WebName+"/upload", filePath)
	want := fmt.Sprintf("%d %s", world.FileSize, world.FileDigest(world.FileSize))
	if err == nil && answer != want {
		err = fmt.Errorf("the server got %q, not %q", answer, want)
	}
	return rate(world.FileSize, took), err
}

// survive downloads while the relay that carries the download is killed.
func (d *demo) survive(ctx context.Context) (string, error) {
	busy := d.busy.watch()
	type result struct {
		rate string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		rate, err := d.download(ctx)
		done <- result{rate, err}
	}()
	select {
	case i := <-busy:
		d.relays[i].Kill()
		d.busy.killed = i
	case r := <-done:
		return "", errors.Join(r.err, errors.New("it ended before a relay had carried any of it"))
	}
	r := <-done
	return r.rate + " over the other one", r.err
}

// makeFile writes the file anew, so that the upload does not hang on the
// download.
func makeFile() error {
	f, err := os.Create(filePath)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, world.Content(world.FileSize))
	return err
}

// difference lists the lines that only one of two sorted texts has.
func difference(before, now string) string {
	var out []string
	only := func(sign, text, other string) {
		for line := range strings.Lines(text) {
			if !strings.Contains("\n"+other, "\n"+line) {
				out = append(out, sign+" "+strings.TrimSpace(line))
			}
		}
	}
	only("-", before, now)
	only("+", now, before)
	return strings.Join(out, "\n")
}
