package relayd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip11"
)

// describe makes the relay's description of itself. (NIP-11)
func (s *Server) describe(opts *Options, set *settings) ([]byte, error) {
	name := opts.Name
	if name == "" {
		name = "nws-vpn relay"
	}
	return json.Marshal(nip11.Info{
		Name:          name,
		Description:   opts.Description,
		Contact:       opts.Contact,
		SupportedNIPs: s.supported(set),
		Software:      "https://github.com/nws-vpn/nws-vpn",
		Version:       opts.Version,
		Limitation: nip11.Limitation{
			MaxMessageLength:    set.limits.MaxMessage,
			MaxSubscriptions:    set.limits.MaxSubscriptions,
			MaxFilters:          set.limits.MaxFilters,
			MaxLimit:            set.limits.MaxLimit,
			MaxSubIDLength:      nip01.MaxSubscriptionID,
			MaxContentLength:    set.limits.MaxEvent,
			MinPoWDifficulty:    set.minPoW,
			AuthRequired:        set.members != nil,
			RestrictedWrites:    set.members != nil || set.minPoW > 0,
			CreatedAtLowerLimit: int64(set.limits.MaxStoredAge / time.Second),
			CreatedAtUpperLimit: int64(set.limits.MaxAhead / time.Second),
		},
		Retention: s.retention(&set.limits),
	})
}

func (s *Server) supported(set *settings) []int {
	nips := []int{1}
	if s.keep.Has(kindDeletion) {
		nips = append(nips, 9)
	}
	nips = append(nips, 11)
	if set.minPoW > 0 {
		nips = append(nips, 13)
	}
	return append(nips, 40, 42, 45, 70)
}

// retention says which kinds are kept and which are not.
func (s *Server) retention(limits *Limits) (list nip11.Retentions) {
	none := int64(0)
	if len(s.keep) > 0 {
		kept := nip11.Retention{Kinds: pairs(s.keep), Count: limits.MaxStored}
		if age := int64(limits.MaxStoredAge / time.Second); age > 0 {
			kept.Time = &age
		}
		list = append(list, kept)
	}
	if rest := s.keep.others(); len(rest) > 0 {
		list = append(list, nip11.Retention{Kinds: pairs(rest), Time: &none})
	}
	return list
}

func pairs(kinds Kinds) (list [][2]int) {
	for _, r := range kinds {
		list = append(list, [2]int{r.First, r.Last})
	}
	return list
}

// ServeHTTP answers a websocket handshake and serves the connection until it
// ends; it answers other requests with the relay's description, as NIP-11 has
// it to those who accept application/nostr+json.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	switch {
	case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		s.serve(w, r)
	case r.Method == http.MethodOptions:
		header.Set("Access-Control-Allow-Headers", "*")
		header.Set("Access-Control-Allow-Methods", "GET, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "this is a Nostr relay: connect with a websocket", http.StatusMethodNotAllowed)
	case strings.Contains(r.Header.Get("Accept"), nip11.ContentType):
		header.Set("Content-Type", nip11.ContentType)
		w.Write(s.settings.Load().info)
	default:
		header.Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "This is a Nostr relay. Connect to it with a Nostr client.")
	}
}
