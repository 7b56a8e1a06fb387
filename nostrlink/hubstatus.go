package nostrlink

import (
	"slices"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// Relays tells of the connections that are in use, by URL.
func (h *Hub) Relays() []relay.Status {
	h.mu.Lock()
	posts := make([]*post, 0, len(h.posts))
	for _, p := range h.posts {
		posts = append(posts, p)
	}
	h.mu.Unlock()
	list := make([]relay.Status, 0, len(posts))
	for _, p := range posts {
		list = append(list, p.client.Status())
	}
	slices.SortFunc(list, func(a, b relay.Status) int { return strings.Compare(a.URL, b.URL) })
	return list
}
