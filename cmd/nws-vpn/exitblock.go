package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit/admission"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// book opens the bans and invitations of the exit that is meant, whether it runs
// or not. One that runs notices what is changed in them.
func (s *exitSocket) book(ctx context.Context) (*admission.Book, *config.Config, error) {
	cfg, err := s.config.load()
	if err != nil {
		return nil, nil, err
	}
	dir, err := s.dir()
	if err != nil {
		return nil, nil, err
	}
	if err := s.isMeant(ctx, dir); err != nil {
		return nil, nil, err
	}
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir():
		return nil, nil, fmt.Errorf("no exit has run with the state directory %s: name another one with --state-dir, or its key file with --key", dir)
	case isExitState(dir):
	case s.stateDir != "":
		return nil, nil, fmt.Errorf("%s is no exit's state directory, for none has run with it: name another one with --state-dir, or start the exit first", dir)
	default:
		fmt.Fprintf(s.notes(), "nws-vpn: no exit has used %s yet: what is written there holds for the first that does\n", dir)
	}
	b, err := openBook(dir, &cfg.Exit)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: run this as the exit's user, or as root", err)
	}
	return b, cfg, err
}

// parseClient reads whom a command is about.
func parseClient(text string) (envelope.PublicKey, error) {
	n, err := name.Parse(text)
	if err == nil {
		err = envelope.PublicKey(n.Key).Check()
	}
	return n.Key, err
}

var days = regexp.MustCompile(`^([0-9]{1,4})([dw])$`)

// until reads how long something shall last from now on: 7d, 2w or 12h. Empty is
// for ever, a zero time.
func until(span string, now time.Time) (time.Time, error) {
	if span == "" {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(span)
	if m := days.FindStringSubmatch(span); m != nil {
		var n int
		n, err = strconv.Atoi(m[1])
		d = time.Duration(n) * 24 * time.Hour
		if m[2] == "w" {
			d *= 7
		}
	}
	const least, most = time.Minute, 100 * 365 * 24 * time.Hour
	if err != nil || d < least || d > most {
		return time.Time{}, fmt.Errorf("--for %q: want a time such as 12h, 7d or 4w, of a minute at least", span)
	}
	return now.Add(d), nil
}

func exitBlockCommand() *cobra.Command {
	var (
		socket       exitSocket
		span, reason string
	)
	cmd := &cobra.Command{
		Use:   "block NPUB",
		Short: "Ban an identity from this exit",
		Long: `Bans an identity, at once: its sessions end, and it is told why, and until when.
In an exit for everybody (admission = "open") who is banned can come back as a
stranger, without an identity; admission = "allowlist" or "wot" keeps strangers out.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parseClient(args[0])
			if err != nil {
				return err
			}
			now := time.Now()
			end, err := until(span, now)
			if err != nil {
				return err
			}
			book, cfg, err := socket.book(cmd.Context())
			if err == nil {
				err = book.Block(key, end, reason, now)
			}
			if err != nil {
				return err
			}
			if cfg.Exit.Admission == config.AdmitAll {
				fmt.Fprintln(cmd.ErrOrStderr(), `nws-vpn: this exit is open to strangers, as which the banned can come back: see admission in the configuration`)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "banned %s %s\n", key.NPub(), untilWhen(end))
			return err
		},
	}
	socket.add(cmd)
	cmd.Flags().StringVar(&span, "for", "", "how long, such as 12h or 7d (default: until \"nws-vpn exit unblock\")")
	cmd.Flags().StringVar(&reason, "reason", "", "why, which the banned are told")
	return cmd
}

func untilWhen(t time.Time) string {
	if t.IsZero() {
		return "for good"
	}
	return "until " + t.Format("2006-01-02 15:04 MST")
}

func exitUnblockCommand() *cobra.Command {
	var socket exitSocket
	cmd := &cobra.Command{
		Use:   "unblock NPUB",
		Short: "End a ban",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parseClient(args[0])
			if err != nil {
				return err
			}
			book, _, err := socket.book(cmd.Context())
			if err == nil {
				err = book.Unblock(key, time.Now())
			}
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is not banned any more\n", key.NPub())
			}
			return err
		},
	}
	socket.add(cmd)
	return cmd
}

// listedBan is a ban in JSON.
type listedBan struct {
	NPub   string    `json:"npub"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

func exitBlockedCommand() *cobra.Command {
	var (
		socket exitSocket
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "blocked",
		Short: "List who is banned",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			book, _, err := socket.book(cmd.Context())
			if err != nil {
				return err
			}
			bans, err := book.Bans(time.Now())
			if err != nil {
				return err
			}
			if asJSON {
				list := []listedBan{}
				for _, b := range bans {
					list = append(list, listedBan{b.Key.NPub(), b.Since, b.Until, b.Reason})
				}
				return writeJSON(cmd.OutOrStdout(), struct {
					Schema int         `json:"schema"`
					Bans   []listedBan `json:"bans"`
				}{admissionSchema, list})
			}
			if len(bans) == 0 {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "nobody is banned")
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, b := range bans {
				fmt.Fprintf(w, "%s\t%s\t%s\n", b.Key.NPub(), untilWhen(b.Until), oneLine(b.Reason))
			}
			return w.Flush()
		},
	}
	socket.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON with a schema number")
	return cmd
}

// admissionSchema is the version of the JSON of bans and invitations; see
// statusSchema.
const admissionSchema = 1
