package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func nameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "name",
		Short: "Write and read the names of exits",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(nameEncodeCommand(), nameDecodeCommand())
	return cmd
}

func nameEncodeCommand() *cobra.Command {
	var (
		relays []string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "encode NPUB|HEX [--relay URL]...",
		Short: "Write the name of an exit in all its spellings",
		Long: `Writes the name of an exit, on the relays where it listens, in all spellings.
A .nostr name holds relays with a URL of up to 39 characters.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return spell(cmd.OutOrStdout(), args[0], relays, asJSON)
		},
	}
	cmd.Flags().StringSliceVar(&relays, "relay", nil, "relay where the exit listens; may be given more than once")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON with a schema number")
	return cmd
}

func nameDecodeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "decode NAME",
		Short: "Read a name in any spelling: key and relays",
		Long: `Reads the name of an exit in any spelling: NAME.nostr, npub, nprofile or
hexadecimal digits. It asks nobody.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return spell(cmd.OutOrStdout(), args[0], nil, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON with a schema number")
	return cmd
}

// nameSchema is the version of name's JSON; see statusSchema.
const nameSchema = 1

// spelledName is what `nws-vpn name … --json` prints.
type spelledName struct {
	Schema   int      `json:"schema"`
	Key      string   `json:"key"`
	NPub     string   `json:"npub"`
	NProfile string   `json:"nprofile"`
	Name     string   `json:"name"`
	KeyName  string   `json:"key_name"`
	NPubName string   `json:"npub_name"`
	Relays   []string `json:"relays"`
	LeftOut  []string `json:"left_out,omitempty"` // of name
}

// spell prints all spellings of a name, with relays added to it.
func spell(out io.Writer, text string, relays []string, asJSON bool) error {
	n, err := name.New(text, relays)
	if err != nil && isPetname(text) {
		return errors.New("no exit's name, for there is no key in it: is it a petname of [names] in the configuration?")
	}
	if err != nil {
		return err
	}
	if err := envelope.PublicKey(n.Key).Check(); err != nil {
		return errors.New("name: the key in it is no public key: look for a typing error")
	}
	s, err := n.Spellings()
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(out, &spelledName{
			Schema: nameSchema, Key: s.Key, NPub: s.NPub, NProfile: s.NProfile,
			Name: s.Host, KeyName: s.KeyHost, NPubName: s.NPubHost,
			Relays: append([]string{}, s.Relays...), LeftOut: s.LeftOut,
		})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, value string) { fmt.Fprintf(w, "%s\t%s\n", what, value) }
	line("key", s.Key)
	line("npub", s.NPub)
	line("nprofile", s.NProfile)
	line("name", s.Host)
	if s.KeyHost != s.Host {
		line("without relays", s.KeyHost)
	}
	line("by npub", s.NPubHost)
	for i, relay := range s.Relays {
		line([...]string{"relays", ""}[min(i, 1)], relay)
	}
	for _, relay := range s.LeftOut {
		line("not in name", relay+" (too long for it; nprofile has it)")
	}
	return w.Flush()
}

// isPetname reports whether a host is one label under .nostr that is too short to
// hold a key.
func isPetname(host string) bool {
	const leastKey = 50 // letters, in any spelling
	label, rest, _ := strings.Cut(strings.TrimSuffix(strings.ToLower(host), "."), ".")
	return name.Under(host) && rest == "nostr" && !strings.HasPrefix(label, "npub1") && label != "" && len(label) < leastKey
}

// writeJSON prints v for programs.
func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
