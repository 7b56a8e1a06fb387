package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/exit/admission"
	"github.com/nws-vpn/nws-vpn/nostrlink/invite"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// inviteOptions are what an invitation is to be like.
type inviteOptions struct {
	span, name, as string
	uses           int
	relays         []string
	qr             bool
}

func exitInviteCommand() *cobra.Command {
	var (
		socket exitSocket
		o      inviteOptions
	)
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make an invitation to this exit",
		Long: `Prints an invitation, as one line for "nws-vpn join" and, in a terminal, as a QR
code. It holds the exit's key, its relays and a secret: send it by a way that others
do not see. The first who show it are let in, as many as --uses says, each by an
identity that the exit knows from then on, until the invitation is over or revoked.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.invite(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), &socket)
		},
	}
	socket.add(cmd)
	cmd.Flags().StringVar(&o.span, "for", "", "how long the invited are let in, such as 30d (default: until \"nws-vpn exit revoke\")")
	cmd.Flags().IntVar(&o.uses, "uses", 1, "how many identities it is for")
	cmd.Flags().StringVar(&o.name, "name", "", "a name to know it by among others, such as that of whom you invite; it is not in the invitation")
	cmd.Flags().StringVar(&o.as, "as", "", "what the invited shall call this exit, unless they choose another name")
	cmd.Flags().StringSliceVar(&o.relays, "relay", nil, "relay URL, instead of those that the exit listens on")
	cmd.Flags().BoolVar(&o.qr, "qr", false, "draw the QR code also when this is no terminal")
	return cmd
}

func (o *inviteOptions) invite(ctx context.Context, out, notes io.Writer, socket *exitSocket) error {
	now := time.Now()
	expires, err := until(o.span, now)
	if err != nil {
		return err
	}
	book, cfg, err := socket.book(ctx)
	if err != nil {
		return err
	}
	i := invite.Invite{Token: invite.NewToken(), As: o.as}
	if i.Exit, err = o.exit(ctx, socket, cfg); err != nil {
		return err
	}
	text, err := i.Encode()
	if err != nil {
		return err
	}
	made, err := book.Invite(i.Token.Text(), o.name, o.uses, expires, now)
	if err != nil {
		return err
	}
	if cfg.Exit.Admission == config.AdmitAll {
		fmt.Fprintln(notes, "nws-vpn: this exit is open to everybody, invited or not: see admission in the configuration")
	}
	for _, relay := range i.Exit.Relays {
		if err := name.PublicRelay(relay); err != nil {
			fmt.Fprintf(notes, "nws-vpn: %s is used only by those who `nws-vpn join --allow-private`: %v\n", relay, err)
		}
	}
	if _, err := fmt.Fprintln(out, text); err != nil {
		return err
	}
	if o.qr || isTerminal(out) {
		if err := drawQR(out, strings.ToUpper(text)); err != nil {
			return err
		}
	}
	whom, span := "one identity", "until it is revoked"
	if made.Uses != 1 {
		whom = fmt.Sprintf("%d identities", made.Uses)
	}
	if !expires.IsZero() {
		span = untilWhen(expires)
	}
	_, err = fmt.Fprintf(notes, "invitation %s, for %s, %s\n", made.ID, whom, span)
	return err
}

// exit is what is invited to: as the running exit says, or the configuration.
func (o *inviteOptions) exit(ctx context.Context, socket *exitSocket, cfg *config.Config) (n name.Name, err error) {
	dir, err := socket.dir()
	if err != nil {
		return n, err
	}
	var relays []string
	answer, err := control.Do(ctx, dir, http.MethodGet, "/status")
	switch {
	case err == nil:
		var now exitReport
		if err := json.Unmarshal(answer, &now); err != nil || len(now.Names) == 0 {
			return n, errors.New("the running exit gives no proper answer: is it of another version?")
		}
		if n, err = name.Parse(now.Names[0].NPub); err != nil {
			return n, err
		}
		for _, r := range now.Names[0].Relays {
			relays = append(relays, r.URL)
		}
	case errors.Is(err, control.ErrNotRunning):
		path := cfg.Exit.KeyFile
		if socket.keyPath != "" {
			path = socket.keyPath
		}
		if path == "" {
			return n, errors.New("which exit is meant? name its key file with --key, or its configuration with --config")
		}
		key, err := keyfile.Read(path)
		if err != nil {
			return n, err
		}
		n.Key, relays = key.Public(), cfg.Exit.Relays
	default:
		return n, err
	}
	if len(o.relays) > 0 {
		relays = o.relays
	}
	for _, relay := range relays {
		canonical, err := name.Relay(relay)
		if err != nil {
			return n, err
		}
		n.Relays = append(n.Relays, canonical)
	}
	if len(n.Relays) == 0 {
		return n, errors.New("no relay is known for the exit: name one with --relay")
	}
	return n, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// drawQR draws a text for a camera, two rows in a line. The colors are given, so
// that it does not depend on those of the terminal what is dark.
func drawQR(out io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	const margin = 4
	light := func(x, y int) bool { return !code.Black(x, y) } // also beyond the edges
	var b strings.Builder
	for y := -margin; y < code.Size+margin; y += 2 {
		b.WriteString("\x1b[97;40m")
		for x := -margin; x < code.Size+margin; x++ {
			switch upper, lower := light(x, y), light(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// listedInvitation is an invitation in JSON.
type listedInvitation struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Over    bool      `json:"over"`
	Uses    int       `json:"uses"`
	Holders []string  `json:"holders"` // npubs
}

func exitInvitesCommand() *cobra.Command {
	var (
		socket exitSocket
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "invites",
		Short: "List the invitations, and who has taken them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			book, _, err := socket.book(cmd.Context())
			if err != nil {
				return err
			}
			now := time.Now()
			invites, err := book.Invites(now)
			if err != nil {
				return err
			}
			if asJSON {
				list := []listedInvitation{}
				for _, i := range invites {
					list = append(list, listInvitation(i, now))
				}
				return writeJSON(cmd.OutOrStdout(), struct {
					Schema  int                `json:"schema"`
					Invites []listedInvitation `json:"invitations"`
				}{admissionSchema, list})
			}
			return printInvites(cmd.OutOrStdout(), invites, now)
		},
	}
	socket.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON with a schema number")
	return cmd
}

func listInvitation(i admission.Invitation, now time.Time) listedInvitation {
	l := listedInvitation{ID: i.ID, Name: i.Name, Created: i.Created, Expires: i.Expires, Uses: i.Uses, Holders: []string{}}
	l.Over = !i.Expires.IsZero() && !now.Before(i.Expires)
	for _, key := range i.Holders {
		l.Holders = append(l.Holders, key.NPub())
	}
	return l
}

func printInvites(out io.Writer, invites []admission.Invitation, now time.Time) error {
	if len(invites) == 0 {
		_, err := fmt.Fprintln(out, "nobody is invited: `nws-vpn exit invite` makes an invitation")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tTAKEN\tGOOD\tBY")
	for _, i := range invites {
		l := listInvitation(i, now)
		good := untilWhen(i.Expires)
		if l.Over {
			good = "over"
		}
		fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\t%s\n", i.ID, orDash(oneLine(i.Name)), len(i.Holders), i.Uses, good, orDash(strings.Join(l.Holders, " ")))
	}
	return w.Flush()
}

func exitRevokeCommand() *cobra.Command {
	var socket exitSocket
	cmd := &cobra.Command{
		Use:   "revoke ID|NAME",
		Short: "Take invitations back, and turn out who came by them",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			book, _, err := socket.book(cmd.Context())
			if err != nil {
				return err
			}
			gone, err := book.Revoke(args[0], time.Now())
			if err != nil {
				return err
			}
			for _, i := range gone {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "revoked %s, which %d had taken\n", i.ID, len(i.Holders)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	socket.add(cmd)
	return cmd
}
