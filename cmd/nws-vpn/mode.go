package main

import (
	"fmt"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink"
)

// speaks sets what a link speaks with its exit.
func speaks(opts *nostrlink.LinkOptions, up *config.Up) {
	switch up.Mode {
	case config.ModeSession:
		opts.Mode = nostrlink.SessionOnly
	case config.ModeNWS:
		opts.Mode = nostrlink.NWSOnly
	}
	if server, err := config.ParseNameserver(up.NWSResolver); err == nil {
		opts.Resolver = server.String()
	}
}

// statusNWS is about a tunnel without a session. What there is no word for in
// NWS as written, nobody can count: losses among it.
type statusNWS struct {
	Streams    int    `json:"streams"`
	Opened     uint64 `json:"opened"`
	Reversed   uint64 `json:"reversed"` // by connections of the exit to us, in the clear
	Sent       uint64 `json:"bytes_sent"`
	Received   uint64 `json:"bytes_received"`
	TimedOut   uint64 `json:"timed_out"`   // streams in which nothing passed any more
	Unsent     uint64 `json:"unsent"`      // streams that no relay took a message of
	Overflowed uint64 `json:"overflowed"`  // streams whose program was slow
	Dropped    uint64 `json:"not_for_use"` // messages that were malformed, repeated or for no stream
}

func nwsStatus(link nostrlink.LinkStatus) *statusNWS {
	if !link.Plain {
		return nil
	}
	s := link.NWS
	return &statusNWS{
		Streams: s.Streams, Opened: s.Opened, Reversed: s.Reversed, Sent: s.BytesSent, Received: s.BytesReceived,
		TimedOut: s.TimedOut, Unsent: s.Unsent, Overflowed: s.Overflowed,
		Dropped: s.Malformed + s.Repeated + s.Foreign + s.Unknown,
	}
}

// notes say what a tunnel without a session cannot do.
func (s *statusNWS) notes() []string {
	notes := []string{
		"the exit is spoken to without a session, as NWS is written: events that a relay loses are lost, the end of a stream cannot be told, UDP and ping are refused",
	}
	if s.Received+s.Reversed == 0 {
		notes = append(notes, "nothing was heard from the exit yet: it may not be there at all, which NWS cannot tell")
	}
	return notes
}

func (s *statusNWS) String() string {
	text := fmt.Sprintf("%d open, %d so far; %d fell silent, %d found no relay", s.Streams, s.Opened, s.TimedOut, s.Unsent)
	if s.Reversed > 0 {
		text += fmt.Sprintf("; %d in the clear, by connections of the exit", s.Reversed)
	}
	return text
}
