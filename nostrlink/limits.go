package nostrlink

import (
	"log/slog"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

// localLimits is what this end grants, and tells in its HELLO or WELCOME.
var localLimits = session.Limits{
	Window:       session.DefaultWindow,
	StreamWindow: session.DefaultStreamWindow,
	MaxStreams:   session.DefaultMaxStreams,
	MaxPacket:    envelope.MaxPlaintext,
}

func sessionConfig(role session.Role, sec secrets, peer session.Limits, log *slog.Logger) session.Config {
	return session.Config{Role: role, ID: sec.id, Local: localLimits, Peer: peer, Log: log}
}
