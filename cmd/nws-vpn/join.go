package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/invite"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// joinOptions are how an invitation is taken.
type joinOptions struct {
	as       string
	identity string
	private  bool // relays that strangers must not name
	again    bool
}

func joinCommand() *cobra.Command {
	var (
		flags configFlags
		o     joinOptions
	)
	cmd := &cobra.Command{
		Use:   "join INVITATION|-",
		Short: "Take an invitation to an exit",
		Long: `Reads an invitation, as "nws-vpn exit invite" prints it, and keeps what is in it
in a file that only you can read. Afterwards the exit is called by its name: "nws-vpn
up --exit NAME", "nws-vpn exec --exit NAME". Nothing is sent until then. With - the
invitation is read from standard input, which keeps it out of the shell's history.

You are somebody new to that exit: an identity is made for it, and shown to no other.
The first one who shows an invitation is the one who is let in, so keep it to
yourself; an exit sees the destinations of your traffic, so take it only from
somebody you trust.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxInvitation))
				if err != nil {
					return err
				}
				text = string(b)
			}
			i, err := invite.Parse(text)
			if err != nil {
				return err
			}
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			return o.join(cmd.OutOrStdout(), i, flags.joinedDir(), cfg.Names)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&o.as, "as", "", "what to call the exit (default: as the invitation says, or a name made of its key)")
	cmd.Flags().StringVar(&o.identity, "identity", "", "key file of an identity that you have, instead of a new one")
	cmd.Flags().BoolVar(&o.private, "allow-private", false, "use relays that are not reached over TLS, or are in a private network, if the invitation names such")
	cmd.Flags().BoolVar(&o.again, "again", false, "take it in the place of an earlier invitation to the same exit")
	return cmd
}

const maxInvitation = 16 << 10

func (o *joinOptions) join(out io.Writer, i invite.Invite, dir string, names map[string]string) error {
	if dir == "" {
		return errors.New("join: there is no directory for it: name a configuration file with --config")
	}
	joined, err := readJoined(dir)
	if err != nil {
		return err
	}
	relays, err := o.usable(i.Exit.Relays)
	if err != nil {
		return err
	}
	key := envelope.PublicKey(i.Exit.Key)
	label, old := joined.of(key)
	x := &joinedExit{Version: joinedVersion, Exit: key.NPub(), Relays: relays, Token: i.Token.Text()}
	switch {
	case old == nil:
		if label, err = o.label(i, joined, names); err != nil {
			return err
		}
	case !o.again:
		return fmt.Errorf("join: you have joined this exit already, as %s: --again takes this invitation in the place of that one", label)
	case o.as != "" && o.as != label || o.identity != "":
		return fmt.Errorf("join: with --again, the exit stays %s and you stay who you are: leave out --as and --identity", label)
	default:
		x.IdentityFile = old.IdentityFile
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	made := ""
	if old == nil {
		if made, err = o.makeIdentity(x, dir, label); err != nil {
			return err
		}
	}
	if err = x.write(filepath.Join(dir, label+joinedSuffix)); err != nil {
		if made != "" {
			os.Remove(made)
		}
		return fmt.Errorf("join: %w", err)
	}
	joined.dir = dir
	c, err := joined.credentials(x)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "joined %s, which is %s on %s\nto it, and to no other, you are %s\nuse it by `nws-vpn up --exit %s` or `nws-vpn exec --exit %s COMMAND`\n",
		label, x.Exit, strings.Join(relays, " "), c.Identity.Public().NPub(), label, label)
	return err
}

// usable are the relays that may be used on the word of whoever made the
// invitation.
func (o *joinOptions) usable(relays []string) ([]string, error) {
	if o.private {
		return relays, nil
	}
	var out []string
	var why error
	for _, relay := range relays {
		if err := name.PublicRelay(relay); err != nil {
			why = fmt.Errorf("%s: %w", relay, err)
			continue
		}
		out = append(out, relay)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("join: the invitation names no relay that a stranger may send you to (%w): if you know it, say --allow-private", why)
	}
	return out, nil
}

// label chooses the name of an exit that is new.
func (o *joinOptions) label(i invite.Invite, joined *joinedExits, names map[string]string) (string, error) {
	label := o.as
	if label == "" {
		label = i.As
	}
	if label == "" {
		label = "exit-" + strings.TrimPrefix(i.Exit.NPub(), "npub1")[:6]
	}
	if err := name.CheckPetname(label); err != nil {
		return "", fmt.Errorf("join: --as %.80q: %w", label, err)
	}
	_, own := names[label]
	if own || joined.byName[label] != nil || joined.bad[label] != nil || label == "auto" {
		return "", fmt.Errorf("join: %s is the name of another exit already: give this one another name with --as", label)
	}
	return label, nil
}

// makeIdentity says who the user is to the exit, and returns the file that was
// made for it, if one was.
func (o *joinOptions) makeIdentity(x *joinedExit, dir, label string) (made string, err error) {
	if o.identity != "" {
		if _, err := keyfile.Read(o.identity); err != nil {
			return "", err
		}
		x.IdentityFile, err = filepath.Abs(o.identity)
		return "", err
	}
	key, err := envelope.GenerateSecretKey()
	if err != nil {
		return "", err
	}
	x.IdentityFile = label + ".key"
	made = filepath.Join(dir, x.IdentityFile)
	err = keyfile.Create(made, key)
	if errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("%w; or give the exit another name with --as", err)
	}
	return made, err
}

// write replaces the file at path.
func (x *joinedExit) write(path string) error {
	text, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".join-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
