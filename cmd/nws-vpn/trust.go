package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/castore"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
)

func trustCommand() *cobra.Command {
	t := &trust{store: castore.System}
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Have browsers trust .nostr sites, by an authority of this machine's own",
		Long: `With trust_sites = true in the section [up] of the configuration, "nws-vpn up"
verifies the TLS of .nostr sites by what their Nostr keys vouch for, and presents
them to programs in the name of an authority that only this machine has. It is
good for names under .nostr and nothing else, and its private key never leaves
the state directory.

"create" makes the authority, "install" adds it to the authorities that this
system's programs trust, "remove" undoes both. Browsers with a store of their own
(Firefox, Chrome) import what "show" prints.`,
		Args: cobra.NoArgs,
	}
	for _, sub := range []struct {
		use, short string
		run        func(out, notes io.Writer) error
	}{
		{"create", "Make the authority", t.create},
		{"install", "Have this system's programs trust it", t.install},
		{"remove", "Take it out of the system's store, and delete it", t.remove},
		{"show", "Print its certificate in PEM, and where it stands", t.show},
	} {
		c := &cobra.Command{
			Use: sub.use, Short: sub.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return sub.run(cmd.OutOrStdout(), cmd.ErrOrStderr())
			},
		}
		t.dirs.add(c)
		cmd.AddCommand(c)
	}
	return cmd
}

// authorityPath is where the authority is kept, private key included.
func (d *stateDirs) authorityPath() string { return filepath.Join(d.lasting(), "authority") }

// openAuthority reads the authority, which must have been created.
func openAuthority(dirs stateDirs) (*cert.Authority, error) {
	if _, err := os.Stat(dirs.authorityPath()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("this machine has no authority: make one with `nws-vpn trust create`")
		}
		return nil, fmt.Errorf("trust: %w", err)
	}
	return cert.OpenAuthority(dirs.authorityPath(), time.Now())
}

// trust is what the commands share.
type trust struct {
	dirs  stateDirs
	store func() (*castore.Store, error) // the system's
}

func (t *trust) create(out, _ io.Writer) error {
	path := t.dirs.authorityPath()
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("trust: %s exists already: `nws-vpn trust show` shows it, `nws-vpn trust remove` deletes it", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	authority, err := cert.OpenAuthority(path, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "created %s\n", describe(authority))
	return err
}

// describe says which authority it is, for people to compare.
func describe(a *cert.Authority) string {
	c := a.Certificate()
	return fmt.Sprintf("authority for .nostr, valid until %s, SHA-256 %X", c.NotAfter.UTC().Format(time.DateOnly), sha256.Sum256(c.Raw))
}

func (t *trust) install(out, _ io.Writer) error {
	authority, err := openAuthority(t.dirs)
	if err != nil {
		return err
	}
	store, err := t.store()
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	if err := store.Install(authority.PEM()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "installed %s\nin %s; browsers with a store of their own import what `nws-vpn trust show` prints\n", describe(authority), store.Path())
	return err
}

func (t *trust) remove(out, _ io.Writer) error {
	store, err := t.store()
	removed := false
	if err == nil { // else it cannot have been installed by us
		if removed, err = store.Remove(); err != nil {
			return err
		}
	}
	if removed {
		fmt.Fprintf(out, "removed from the system's store\n")
	}
	switch err := os.Remove(t.dirs.authorityPath()); {
	case err == nil:
		_, err = fmt.Fprintf(out, "deleted %s\n", t.dirs.authorityPath())
		return err
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("trust: %w", err)
	case !removed:
		_, err = fmt.Fprintln(out, "there is no authority")
		return err
	}
	return nil
}

// show prints the certificate; where it stands goes to notes.
func (t *trust) show(out, notes io.Writer) error {
	authority, err := openAuthority(t.dirs)
	if err != nil {
		return err
	}
	where := "not in the system's store: see `nws-vpn trust install`"
	if store, err := t.store(); err != nil {
		where = err.Error()
	} else if store.Installed(authority.PEM()) {
		where = "in the system's store, as " + store.Path()
	}
	fmt.Fprintf(notes, "%s\n%s\n", describe(authority), where)
	_, err = out.Write(authority.PEM())
	return err
}
