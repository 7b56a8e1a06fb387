package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// operator runs a command of the exit's operator and returns what it says.
func (e *testExit) operator(args ...string) (out string, err error) {
	e.t.Helper()
	cmd := root()
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(append(append([]string{"exit"}, args...), "--config", e.flags.file, "--key", e.flags.keyPath))
	err = cmd.ExecuteContext(e.t.Context())
	return stdout.String(), err
}

func (e *testExit) mustOperate(args ...string) string {
	e.t.Helper()
	out, err := e.operator(args...)
	if err != nil {
		e.t.Fatalf("exit %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// invited makes an invitation and has somebody join by it.
func (e *testExit) invited(args ...string) *guestOf {
	e.t.Helper()
	return e.joinBy(strings.TrimSpace(e.mustOperate(append([]string{"invite"}, args...)...)))
}

// guestOf is somebody who has joined the exit.
type guestOf struct {
	e    *testExit
	dir  string
	show credentialsFunc
	npub string
}

func (e *testExit) joinBy(invitation string) *guestOf {
	e.t.Helper()
	dir := e.t.TempDir()
	cmd := root()
	cmd.SetOut(new(bytes.Buffer))
	cmd.SetIn(strings.NewReader(invitation + "\n"))
	cmd.SetArgs([]string{"join", "-", "--as", "home", "--allow-private", "--config", filepath.Join(dir, "nws.toml")})
	if err := os.WriteFile(filepath.Join(dir, "nws.toml"), nil, 0o600); err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.ExecuteContext(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	cfg := upWith("home")
	show, err := dialAs(cfg, filepath.Join(dir, "exits"), false)
	if err != nil {
		e.t.Fatal(err)
	}
	if cfg.Up.Exit != e.key.NPub() || len(cfg.Up.Relays) != 1 || cfg.Up.Relays[0] != e.relay {
		e.t.Fatalf("joined %s on %q", cfg.Up.Exit, cfg.Up.Relays)
	}
	return &guestOf{e, dir, show, show(e.key).Identity.Public().NPub()}
}

// linkAs is a link to the exit with credentials.
func (e *testExit) linkAs(show credentialsFunc) *nostrlink.Link {
	e.t.Helper()
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	link := hub.NewLink(e.key, []string{e.relay}, nostrlink.LinkOptions{Mode: nostrlink.SessionOnly, Credentials: show})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { link.Serve(ctx) })
	e.t.Cleanup(func() { cancel(); serving.Wait(); hub.Close() })
	return link
}

func showing(key *envelope.SecretKey, token string) credentialsFunc {
	return func(envelope.PublicKey) nostrlink.Credentials {
		return nostrlink.Credentials{Identity: key, Token: token}
	}
}

func (e *testExit) wantIn(what string, show credentialsFunc) *nostrlink.Link {
	e.t.Helper()
	link := e.linkAs(show)
	if err := link.Connect(e.t.Context()); err != nil {
		e.t.Errorf("%s is not let in: %v", what, err)
	}
	return link
}

// wantOut wants a refusal that says something.
func (e *testExit) wantOut(what string, show credentialsFunc, words string) {
	e.t.Helper()
	link := e.linkAs(show)
	err := link.Connect(e.t.Context())
	if err == nil || !strings.Contains(err.Error(), words) {
		e.t.Errorf("%s: %v, want a refusal with %q", what, err, words)
	}
	if failure := link.Status().Failure; failure == nil {
		e.t.Errorf("%s: the status does not tell", what)
	}
}

// Who is invited is let in by the identity that was made for it, who
// is not is told why, and who is banned or not invited any more is turned out at once.
func TestInvitedAndBanned(t *testing.T) {
	e := newTestExit(t, "admission = \"allowlist\"\n")
	e.start(e.flags, "ready")
	server := echoServer(t)
	stranger := envelopetest.NewKey(t)
	e.wantOut("a stranger", nil, "ask its operator for an invitation")
	e.wantOut("an identity that nobody knows", showing(&stranger, ""), "does not admit "+stranger.Public().NPub())

	alice := e.invited("--name", "alice", "--for", "30d")
	link := e.wantIn("alice", alice.show)
	flow := dialFlow(t, link, server)
	echo(t, flow, "hello")
	e.wantIn("alice again, by her identity alone", showing(alice.show(e.key).Identity, ""))
	e.wantOut("somebody else with her token", showing(&stranger, alice.show(e.key).Token), "taken by another identity")
	e.wantOut("her token without an identity", showing(nil, alice.show(e.key).Token), "with an identity only")
	var list struct {
		Invitations []listedInvitation
	}
	if err := json.Unmarshal([]byte(e.mustOperate("invites", "--json")), &list); err != nil || len(list.Invitations) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	if i := list.Invitations[0]; i.Name != "alice" || len(i.Holders) != 1 || i.Holders[0] != alice.npub {
		t.Errorf("%+v", i)
	}
	if clients := e.status().Clients; len(clients) == 0 || clients[0].NPub != alice.npub {
		t.Errorf("the exit's accounts: %+v", clients)
	}

	e.mustOperate("block", alice.npub, "--for", "7d", "--reason", "sends spam")
	if n, err := flow.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes come to who is banned", n)
	}
	var banned struct{ Bans []listedBan }
	if err := json.Unmarshal([]byte(e.mustOperate("blocked", "--json")), &banned); err != nil || len(banned.Bans) != 1 || banned.Bans[0].Until.Sub(banned.Bans[0].Since) != 7*24*time.Hour {
		t.Fatalf("%+v, %v", banned, err)
	}
	e.wantOut("alice, banned", alice.show, "banned from this exit until "+banned.Bans[0].Until.UTC().Format(time.DateOnly))
	e.wantOut("alice, banned", alice.show, "sends spam")
	if out := e.mustOperate("blocked"); !strings.Contains(out, alice.npub) || !strings.Contains(out, "sends spam") {
		t.Errorf("blocked: %q", out)
	}
	e.mustOperate("unblock", alice.npub)
	link = e.wantIn("alice, not banned any more", alice.show)
	flow = dialFlow(t, link, server)
	echo(t, flow, "hello")

	e.mustOperate("revoke", "alice")
	if n, err := flow.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes come to who is not invited any more", n)
	}
	e.wantOut("alice, after the revocation", alice.show, "was revoked")
	for _, wrong := range [][]string{
		{"block", "alice"}, {"block", alice.npub, "--for", "soon"}, {"block", alice.npub, "--for", "-1h"}, {"block", alice.npub, "--reason", "a\nb"},
		{"unblock", alice.npub}, {"revoke", "alice"}, {"invite", "--uses", "0"}, {"invite", "--as", "../x"}, {"invite", "--relay", "nonsense"},
		{"block", "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"},
	} {
		if out, err := e.operator(wrong...); err == nil || strings.Contains(err.Error(), "nsec1") {
			t.Errorf("exit %q: %q, %v", wrong, out, err)
		}
	}
}

// Who may come in is read again with the configuration, and follow lists are
// fetched from the exit's relays.
func TestAdmissionChanges(t *testing.T) {
	e := newTestExit(t, "")
	e.start(e.flags, "ready")
	author, followed, listed := envelopetest.NewKey(t), envelopetest.NewKey(t), envelopetest.NewKey(t)
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	defer hub.Close()
	follow := func(at time.Time, keys ...envelope.SecretKey) {
		t.Helper()
		var tags [][]string
		for _, key := range keys {
			tags = append(tags, []string{"p", key.Public().Hex()})
		}
		event, id, err := envelope.Sign(nil, author, envelope.Template{Kind: announce.KindFollows, CreatedAt: at, Tags: tags})
		if err == nil {
			err = hub.Publish(t.Context(), []string{e.relay}, event, id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	reload := func(text string) {
		t.Helper()
		e.write(text)
		if _, err := e.ask("POST", "/reload"); err != nil {
			t.Fatal(err)
		}
	}
	server := echoServer(t)
	flow := dialFlow(t, e.wantIn("a stranger, while it is open", nil), server)
	echo(t, flow, "hello")
	follow(time.Now().Add(-time.Hour), followed)

	reload("admission = \"wot\"\nwot = [\"" + author.Public().NPub() + "\"]\n")
	if _, err := flow.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger stays")
	}
	e.wantIn("who asks whom to trust", showing(&author, ""))
	// The list is fetched beside the reload; links try again until they are let in.
	link := e.linkAs(showing(&followed, ""))
	for err := link.Connect(t.Context()); err != nil; err = link.Connect(t.Context()) {
		if !strings.Contains(err.Error(), "does not admit") {
			t.Fatal(err)
		}
	}
	flow = dialFlow(t, link, server)
	echo(t, flow, "hello")
	e.wantOut("who is not followed", showing(&listed, ""), "does not admit")

	reload("admission = \"allowlist\"\nallow = [\"" + listed.Public().NPub() + "\"]\n")
	if _, err := flow.Read(make([]byte, 1)); err == nil {
		t.Error("who was followed stays")
	}
	e.wantIn("who is listed", showing(&listed, ""))
	e.wantOut("who was followed", showing(&followed, ""), "does not admit")
	e.write("admission = \"friends\"\n")
	if _, err := e.ask("POST", "/reload"); err == nil || !strings.Contains(err.Error(), "admission") {
		t.Errorf("a configuration that is wrong: %v", err)
	}
	e.wantOut("who was followed", showing(&followed, ""), "does not admit")
}

// The sessions of one identity are bounded, and an invitation is good before the
// exit has run for the first time since.
func TestInvitationToAnExitThatDoesNotRun(t *testing.T) {
	e := newTestExit(t, "admission = \"allowlist\"\nmax_client_sessions = 1\nrelays = [\"wss://relay.example.org\"]\n")
	if _, err := e.operator("invite"); err == nil || !strings.Contains(err.Error(), "no exit has run") {
		t.Errorf("an invitation to an exit that never ran: %v", err)
	}
	if err := os.Mkdir(e.flags.keyPath+".state", 0o700); err != nil {
		t.Fatal(err)
	}
	alice := e.invited("--relay", e.relay)
	e.start(e.flags, "ready")
	e.wantIn("alice", alice.show)
	e.wantOut("alice, a second time", alice.show, "1 sessions")
}

func TestQRCode(t *testing.T) {
	var out bytes.Buffer
	if err := drawQR(&out, "NWSVPN1ABC"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	const size = 21 + 8 // the smallest code, and its margin
	if len(lines) != (size+1)/2 {
		t.Errorf("%d lines", len(lines))
	}
	for _, l := range lines {
		l = strings.TrimSuffix(strings.TrimPrefix(l, "\x1b[97;40m"), "\x1b[0m")
		if n := len([]rune(l)); n != size {
			t.Errorf("%d columns: %q", n, l)
		}
	}
}
