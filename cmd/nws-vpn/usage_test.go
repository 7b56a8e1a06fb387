package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func TestWrongUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"dwon", "there is no command `nws-vpn dwon`: perhaps `nws-vpn down`"},
		{"zzzzzzzz", "see `nws-vpn --help`"},
		{"name decodd", "perhaps `nws-vpn name decode`"},
		{"trust x", "there is no command `nws-vpn trust x`"},
		{"exit policy tset a:1", "perhaps `nws-vpn exit policy test`"},
		{"exit statsu", "perhaps `nws-vpn exit status`"},
		{"up now", "want `nws-vpn up --exit NPUB --relay URL`: see `nws-vpn up --help`"},
		{"keygen", "want `nws-vpn keygen FILE`"},
		{"portal", "want `nws-vpn portal COMMAND [ARG…]`"},
		{"exits --relay ftp://x", "--relay: want a relay's URL"},
		{"cert x.nostr --relay ftp://x", "--relay: want a relay's URL"},
		{"doctor --relay ftp://x", "--relay: want a relay's URL"},
		{"exti", "there is no command `nws-vpn exti`: perhaps `nws-vpn exit`"},
		{"exti --key x --relay y", "there is no command `nws-vpn exti`: perhaps `nws-vpn exit`"},
		{"exce --exit x", "perhaps `nws-vpn exec`"},
		{"leakt", "perhaps `nws-vpn leaktest`"},
		{"exit statsu --jsno", "perhaps `nws-vpn exit status`"},
		{"--key x", "unknown flag: --key: see `nws-vpn --help`"},
		{"exit --jsno", "unknown flag: --jsno: see `nws-vpn exit --help`"},
		{"exits --relay ws://x --relay ftp://x", "--relay: element 2: want a relay's URL"},
		{"status --jsno", "unknown flag: --jsno: see `nws-vpn status --help`"},
	} {
		cmd, out := root(), new(bytes.Buffer)
		cmd.SetOut(out)
		cmd.SetArgs(strings.Fields(test.args))
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("nws-vpn %s: %v, want %q", test.args, err, test.want)
		}
		if out.Len() > 0 {
			t.Errorf("nws-vpn %s: printed %q", test.args, out)
		}
	}
}

// What is wrong with a call of exec is told from what its command ends with.
func TestStatusOfWrongUsage(t *testing.T) {
	for args, want := range map[string]exitStatus{"exec": statusFailed, "exec --exti x true": statusFailed, "status --jsno": 1} {
		cmd := root()
		cmd.SetArgs(strings.Fields(args))
		cmd, err := cmd.ExecuteC()
		if status, said := statusOf(cmd, err); err == nil || status != want || said {
			t.Errorf("nws-vpn %s: %v, %v, %v; want %v", args, err, status, said, want)
		}
	}
}

// Groups of commands show what they have.
func TestGroups(t *testing.T) {
	for _, group := range []string{"", "name", "trust", "exit policy"} {
		cmd, out := root(), new(bytes.Buffer)
		cmd.SetOut(out)
		cmd.SetArgs(strings.Fields(group))
		if err := cmd.Execute(); err != nil || !strings.Contains(out.String(), "Available Commands:") {
			t.Errorf("nws-vpn %s: %v, printed %q", group, err, out)
		}
	}
}

// A key where its file's name belongs is not repeated, and no directory is named
// after it; what is no relay is not waited for.
func TestExitRefusesWhatIsNoFileAndNoRelay(t *testing.T) {
	t.Chdir(t.TempDir())
	key := envelopetest.NewKey(t)
	for _, test := range []struct {
		flags exitFlags
		want  string
	}{
		{exitFlags{keyPath: key.NSec(), relays: []string{"ws://127.0.0.1:1"}, allowRoot: true}, "--key: want the path of a file"},
		{exitFlags{keyPath: "missing.key", relays: []string{"ws://127.0.0.1:1"}, allowRoot: true}, "nws-vpn keygen missing.key"},
		{exitFlags{keyPath: "exit.key", relays: []string{"ftp://x"}, allowRoot: true}, "--relay: want a relay's URL"},
	} {
		err := runExit(t.Context(), io.Discard, &test.flags)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), key.NSec()) {
			t.Errorf("%v, want %q and no key", err, test.want)
		}
	}
	if made, err := os.ReadDir("."); err != nil || len(made) > 0 {
		t.Errorf("left %v, %v", made, err)
	}
}

// What is between backquotes in a flag's text is taken for its value's name.
func TestHelpNamesValues(t *testing.T) {
	misnamed := regexp.MustCompile(`--[a-z-]+ nws-vpn `)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if m := misnamed.FindString(cmd.Flags().FlagUsages()); m != "" {
			t.Errorf("%s: %q", cmd.CommandPath(), m)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root())
}
