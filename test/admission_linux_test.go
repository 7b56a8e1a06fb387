package test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// An exit that lets in who was invited: a stranger is told why not, an invitation is
// all it takes, and a ban ends what is open and says so, until it is over.
func TestAnExitForTheInvited(t *testing.T) {
	tun := newTunnel(t)
	const file = "/run/admission.toml"
	for host, text := range map[*netlab.Host]string{tun.Exit: "[exit]\nadmission = \"allowlist\"\n", tun.Client: ""} {
		if err := host.Do(func() error { return os.WriteFile(file, []byte(text), 0o644) }); err != nil {
			t.Fatal(err)
		}
	}
	tun.startRelay()
	tun.startExit("--config", file)
	tun.failing(tun.key, world.RelayURL, "ask its operator for an invitation")

	// The operator is root, and the exit is not.
	operator := func(args ...string) string {
		t.Helper()
		args = append(append([]string{"exit"}, args...), "--key", tun.keyFile, "--config", file)
		res, err := tun.Run(tun.ctx, tun.Exit, args...)
		if err != nil || res.Code != 0 {
			t.Fatalf("nws-vpn %q: code %d, %v: %s", args, res.Code, err, res.Output)
		}
		return res.Stdout
	}
	invitation := strings.TrimSpace(operator("invite", "--name", "alice", "--as", "home"))
	if out := tun.nws("join", invitation, "--allow-private", "--config", file); !strings.Contains(out, "joined home") {
		t.Fatalf("join says %q", out)
	}
	p, err := tun.StartUp(tun.ctx, "home", world.Options{Args: []string{"--config", file}})
	tun.started("up", p, err)
	tun.reaches("through the exit")
	var list struct {
		Invitations []struct {
			Holders []string `json:"holders"`
		} `json:"invitations"`
	}
	if err := json.Unmarshal([]byte(operator("invites", "--json")), &list); err != nil || len(list.Invitations) != 1 || len(list.Invitations[0].Holders) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	operator("block", list.Invitations[0].Holders[0], "--for", "7d", "--reason", "spam")
	tun.await("the client says that it is banned", func() bool {
		s := tun.status()
		said, _ := s["last_error"].(string)
		return s["state"] != "connected" && strings.Contains(said, "banned from this exit until") && strings.Contains(said, "spam")
	})
	operator("unblock", list.Invitations[0].Holders[0])
	tun.recovers()
}
