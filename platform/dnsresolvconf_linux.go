package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Programs that call themselves resolvconf.
const (
	openresolv    = "openresolv"
	debianResolv  = "resolvconf"
	systemdResolv = "systemd's" // resolvectl under another name
)

// resolvconfTimeout bounds one run of the program, which runs hooks of others.
const resolvconfTimeout = 5 * time.Second

// resolvconfChange registers the device's servers with resolvconf, which then
// makes the resolver's file, and feeds forwarders on this machine. What it knows
// is gone after a restart of the machine.
type resolvconfChange struct {
	Device  string
	Flavour string
	Servers []netip.Addr
}

func (r *resolvconfChange) String() string { return "resolvconf -a " + r.key() }

func (r *resolvconfChange) check() error {
	if r.Flavour != openresolv && r.Flavour != debianResolv {
		return errors.New("there is no program resolvconf that is not systemd-resolved's")
	}
	return checkDevice(r.Device)
}

// key is the name under which the servers are registered. Debian's program sorts
// by it, and takes what begins with tun before other interfaces.
func (r *resolvconfChange) key() string {
	if r.Flavour == debianResolv {
		return "tun." + r.Device + ".nws-vpn"
	}
	return r.Device + ".nws-vpn"
}

// lines are what is registered: as in the resolver's file.
func (r *resolvconfChange) lines() []byte {
	return bytes.TrimPrefix(formatResolvConf(r.Servers), []byte(resolvHeader))
}

// records are the files in which the programs keep what was registered.
func (r *resolvconfChange) records(e *env) []string {
	var list []string
	for _, dir := range e.dns.recordDirs {
		list = append(list, filepath.Join(dir, r.key()))
	}
	return list
}

// inForce looks at the program's records: it is asked again and again, and a
// file costs less than a script.
func (r *resolvconfChange) inForce(e *env) (bool, error) {
	for _, name := range r.records(e) {
		if text, err := readBounded(name); err == nil && slices.Equal(parseResolvConf(text), r.Servers) {
			return true, nil
		}
	}
	return false, nil
}

func (r *resolvconfChange) apply(e *env) error {
	args := []string{"-a", r.key()}
	if r.Flavour == openresolv {
		args = append(args, "-m", "0", "-x") // before all others, and instead of them
	}
	return runResolvconf(e, r.lines(), args...)
}

func (r *resolvconfChange) undo(e *env) error {
	if _, flavour := findResolvconf(e); flavour != r.Flavour {
		return nil // the program is gone, and what it knew
	}
	return runResolvconf(e, nil, "-d", r.key())
}

func (r *resolvconfChange) note(err error) string {
	return fmt.Sprintf("cannot register the tunnel's name servers with %s (%v): programs go on asking the others, through the tunnel; see what `resolvconf -a %s` says, or set dns_manager", debianResolv, err, r.key())
}

func runResolvconf(e *env, input []byte, args ...string) error {
	program, _ := findResolvconf(e)
	if program == "" {
		return errors.New("there is no program resolvconf")
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolvconfTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(input)
	cmd.WaitDelay = time.Second // a hook may go on in the background
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("%s took longer than %v", program, resolvconfTimeout)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		line, _, _ := strings.Cut(strings.TrimSpace(string(out[:min(len(out), 200)])), "\n")
		return fmt.Errorf("%s: %w: %s", program, err, line)
	}
	return nil
}

// findResolvconf finds the program and tells whose it is; both are empty if
// there is none.
func findResolvconf(e *env) (program, flavour string) {
	for _, dir := range e.dns.programDirs {
		name := filepath.Join(dir, "resolvconf")
		st, err := os.Stat(name)
		if err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			continue
		}
		if real, err := filepath.EvalSymlinks(name); err == nil && strings.HasPrefix(filepath.Base(real), "resolvectl") {
			return name, systemdResolv
		}
		// The programs are scripts, and openresolv's names itself.
		if text, err := readHead(name); err == nil && bytes.Contains(text, []byte(openresolv)) {
			return name, openresolv
		}
		return name, debianResolv
	}
	return "", ""
}

// readHead reads the beginning of a file of any length.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, maxResolvConf)
	n, err := f.Read(b)
	return b[:n], err
}
