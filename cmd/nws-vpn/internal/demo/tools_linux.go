package demo

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// tools runs the system's programs in the client, or the prober in the place
// of those that are missing.
type tools struct {
	client  *netlab.Host
	paths   map[string]string // of what is installed
	probe   []string
	missing []string
}

func findTools(client *netlab.Host, probe []string) (*tools, error) {
	t := &tools{client: client, paths: map[string]string{}, probe: probe}
	for _, name := range []string{"curl", "dig", "nc", "ping"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.missing = append(t.missing, name)
			continue
		}
		t.paths[name] = path
	}
	if len(t.missing) > 0 && len(probe) == 0 {
		return nil, fmt.Errorf("demo: %s not found: install it (on Debian: apt-get install curl dnsutils netcat-openbsd iputils-ping)", strings.Join(t.missing, ", "))
	}
	return t, nil
}

// run runs a program of the system with its arguments, or the prober with its
// own. input is what it reads, output what it printed, errors included.
func (t *tools) run(ctx context.Context, name string, args, probeArgs []string, input string) (res netlab.Result, err error) {
	path := t.paths[name]
	if path == "" {
		path, args = t.probe[0], append(t.probe[1:len(t.probe):len(t.probe)], probeArgs...)
	}
	return t.client.Run(ctx, netlab.CommandOptions{Stdin: strings.NewReader(input)}, path, args...)
}

// mustRun is run with exit code 0.
func (t *tools) mustRun(ctx context.Context, name string, args, probeArgs []string, input string) (string, error) {
	res, err := t.run(ctx, name, args, probeArgs, input)
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("%s ended with code %d: %s", name, res.Code, res.Output)
	}
	return strings.TrimSpace(res.Stdout), err
}

// get fetches a small page.
func (t *tools) get(ctx context.Context, url string) (string, error) {
	return t.mustRun(ctx, "curl", []string{"-sS", "--fail", "--max-time", "30", url}, []string{"http", url}, "")
}

// download fetches into a file of the client.
func (t *tools) download(ctx context.Context, url, file string) (time.Duration, error) {
	start := time.Now()
	_, err := t.mustRun(ctx, "curl", []string{"-sS", "--fail", "--max-time", "120", "-o", file, url}, []string{"http", "-o", file, url}, "")
	return time.Since(start), err
}

// upload posts a file of the client and returns the answer.
func (t *tools) upload(ctx context.Context, url, file string) (string, time.Duration, error) {
	start := time.Now()
	answer, err := t.mustRun(ctx, "curl",
		[]string{"-sS", "--fail", "--max-time", "120", "-X", "POST", "-T", file, "-H", "Expect:", url}, []string{"http", "-T", file, url}, "")
	return answer, time.Since(start), err
}

// lookup asks for a name: a server and port, or the client's resolver when
// server is empty.
func (t *tools) lookup(ctx context.Context, server, port, name, kind string) (string, error) {
	args, probeArgs := []string{"+short", "+time=10", "+tries=1"}, []string{"dns"}
	if server != "" {
		args = append(args, "@"+server, "-p", port)
		probeArgs = append(probeArgs, "-s", server+":"+port)
	}
	return t.mustRun(ctx, "dig", append(args, name, kind), append(probeArgs, name, kind), "")
}

// unknown is an error when the client's resolver knows the name.
func (t *tools) unknown(ctx context.Context, name string) error {
	res, err := t.run(ctx, "dig", []string{"+noall", "+comments", "+answer", "+time=10", "+tries=1", name, "A"}, []string{"dns", name, "A"}, "")
	if err != nil {
		return err
	}
	if !strings.Contains(res.Output, "NXDOMAIN") && !strings.Contains(res.Output, "no such host") {
		return fmt.Errorf("it answers: %s", res.Output)
	}
	return nil
}

// talk connects, says input, and returns what was answered.
func (t *tools) talk(ctx context.Context, host, port, input string) (netlab.Result, error) {
	return t.run(ctx, "nc", []string{"-v", "-w", "15", host, port}, []string{"tcp", host, port}, input)
}
