package exit

import (
	"fmt"
	"time"
)

// Limits bound what clients may take. A zero field stands for no bound, but for
// Clients. They hold for each client by itself unless they say otherwise: for an
// identity that was proven, or for the session of an unknown one.
type Limits struct {
	Flows            int   // open at a time
	FlowsPerSecond   int   // new ones
	QueriesPerSecond int   // of DNS
	BytesPerSecond   int64 // both directions together
	// TotalBytesPerSecond are for all clients together. Those who want more than
	// there is share it evenly.
	TotalBytesPerSecond int64
	// Day and Month are the bytes of a day and of a month (UTC), both directions
	// together, after which a client's flows end and no new ones open.
	Day, Month int64
	// FlowIdle ends a TCP flow in which nothing passes; FlowLife ends any flow.
	FlowIdle, FlowLife time.Duration
	// Clients bounds how many are known at a time; 0 stands for DefaultClients.
	Clients int
}

// DefaultClients is what zero Limits.Clients stands for. Each takes
// about a kilobyte.
const DefaultClients = 16384

func (l Limits) validate() error {
	for name, n := range map[string]int64{
		"flows": int64(l.Flows), "flows per second": int64(l.FlowsPerSecond), "queries per second": int64(l.QueriesPerSecond),
		"bytes per second": l.BytesPerSecond, "total bytes per second": l.TotalBytesPerSecond, "bytes of a day": l.Day,
		"bytes of a month": l.Month, "idle time": int64(l.FlowIdle), "life": int64(l.FlowLife), "clients": int64(l.Clients),
	} {
		if n < 0 {
			return fmt.Errorf("exit: limits: %s: %d is below zero", name, n)
		}
	}
	return nil
}
