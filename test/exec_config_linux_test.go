package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// TestExecBesideRootsConfiguration: a configuration that only root may read does
// not count for other users, who may have their own.
func TestExecBesideRootsConfiguration(t *testing.T) {
	tun := execWorld(t)
	const (
		machine = "/etc/nws-vpn"
		home    = nobodyDir + "/config"
		own     = home + "/nws-vpn/nws.toml"
	)
	must(t, tun.Client.Do(func() error {
		_ = os.Remove(machine) // a link to the real one, if there is one
		return errors.Join(os.Mkdir(machine, 0o755), os.WriteFile(machine+"/nws.toml", []byte("not for you"), 0o600))
	}))
	exec := func(flags ...string) netlab.Result {
		words := append([]string(nil), asNobody...)
		words = append(words, "env", "XDG_CONFIG_HOME="+home, nobodyBinary, "exec")
		words = append(append(words, flags...), "echo", "it runs")
		return tun.runAny(words[0], "", words[1:]...)
	}
	if res := exec("--exit", tun.key, "--relay", world.RelayURL); res.Code != 0 || !strings.Contains(res.Stdout, "it runs") {
		t.Errorf("with flags: code %d, %s", res.Code, res.Output)
	}
	if res := exec(); res.Code != 125 || !strings.Contains(res.Output, own) || strings.Count(res.Output, "\n") > 0 {
		t.Errorf("with nothing: code %d, %s", res.Code, res.Output)
	}
	must(t, tun.Client.Do(func() error {
		text := fmt.Sprintf("[up]\nexit = %q\nrelays = [%q]\n", tun.key, world.RelayURL)
		return errors.Join(os.MkdirAll(filepath.Dir(own), 0o755), os.WriteFile(own, []byte(text), 0o644))
	}))
	if res := exec(); res.Code != 0 || !strings.Contains(res.Stdout, "it runs") {
		t.Errorf("with an own file: code %d, %s", res.Code, res.Output)
	}
}
