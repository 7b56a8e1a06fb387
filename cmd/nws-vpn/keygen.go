package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

func keygenCommand() *cobra.Command {
	var ifMissing bool
	cmd := &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a secret key in a new file and print its public key",
		Long: `Makes a secret key in a new file that only its owner can read, and prints the
public key (npub). An existing file is left alone. The secret key is never
printed: whoever has the file has the key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := config.CheckKeyFile(args[0]); err != nil {
				return err
			}
			if _, err := os.Lstat(args[0]); ifMissing && err == nil {
				key, err := keyfile.Read(args[0])
				if err == nil {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), key.Public().NPub())
				}
				return err
			}
			key, err := envelope.GenerateSecretKey()
			if err != nil {
				return err
			}
			if err := keyfile.Create(args[0], key); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key.Public().NPub())
			return err
		},
	}
	cmd.Flags().BoolVar(&ifMissing, "if-missing", false, "make one only if there is no file, and print the public key in any case")
	return cmd
}
