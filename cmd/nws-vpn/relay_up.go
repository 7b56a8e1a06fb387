package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/platform"
)

// relayKey is who we are to relays that ask, zero for nobody.
func relayKey(up *config.Up) (envelope.SecretKey, error) {
	if up.RelayKeyFile == "" {
		return envelope.SecretKey{}, nil
	}
	key, err := keyfile.Read(up.RelayKeyFile)
	if err != nil {
		return key, fmt.Errorf("relay_key_file: %w", err)
	}
	return key, nil
}

// openRelay runs the relay within the client, if there is to be one, and has it
// used before the others. It outlives every tunnel.
func (s *supervisor) openRelay() (err error) {
	up := &s.cfg.Up
	if up.RelayListen == "" {
		return nil
	}
	if !up.Inbound {
		return errors.New("relay_listen: nobody would reach the relay on this machine, as connections from outside are refused: set inbound = true, or do without --refuse-inbound")
	}
	if s.relayKey.IsZero() {
		if s.relayKey, err = envelope.GenerateSecretKey(); err != nil {
			return err
		}
	}
	// What is sent has to bypass the tunnel, also without a packet filter.
	control := platform.Control(up.Mark)
	if s.embedded, err = embedRelay(&s.cfg.Relay, up.RelayListen, s.relayKey.Public(), control, s.out, s.log); err != nil {
		return err
	}
	s.relays = append([]string{s.embedded.URL}, s.relays...)
	return nil
}

func (s *supervisor) closeRelay() {
	if s.embedded != nil {
		s.embedded.Close()
	}
}

// relayDialer reaches relays, past the tunnel.
func (s *supervisor) relayDialer() dialFunc {
	dial := bypassDialer(s.cfg.Up.Mark, s.platform.UplinkDNS).DialContext
	if s.embedded != nil {
		return s.embedded.before(dial)
	}
	return dial
}

// ownRelayPatience is how long the exit may take to come to our own relay: it
// has not been there before, and an exit looks again every half minute.
const ownRelayPatience = 45 * time.Second

// waitsForExit waits before another attempt to reach the exit, and reports
// whether there should be one, for an attempt that was begun at a time.
func (s *supervisor) waitsForExit(begun time.Time) bool {
	if s.embedded == nil || time.Since(begun) > ownRelayPatience {
		return false
	}
	select {
	case <-time.After(minPause):
		return true
	case <-s.ctx.Done():
		return false
	}
}
