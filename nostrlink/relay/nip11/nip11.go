// Package nip11 is a relay's description of itself (NIP-11), as JSON, as far as
// it matters here. The client reads it, the embedded relay serves it.
package nip11

// Info is a relay's description of itself (NIP-11), as far as it matters here.
// What a relay does not tell is zero.
type Info struct {
	Name          string     `json:"name,omitempty"`
	Description   string     `json:"description,omitempty"`
	PubKey        string     `json:"pubkey,omitempty"`
	Contact       string     `json:"contact,omitempty"`
	SupportedNIPs []int      `json:"supported_nips,omitempty"`
	Software      string     `json:"software,omitempty"`
	Version       string     `json:"version,omitempty"`
	Limitation    Limitation `json:"limitation,omitzero"`
	Retention     Retentions `json:"retention,omitempty"`
}

// Retention is how many events of some kinds are kept, and for how long.
type Retention struct {
	Kinds [][2]int `json:"kinds,omitempty"` // ranges, both ends included
	Time  *int64   `json:"time,omitempty"`  // seconds; nil: not bounded
	Count int      `json:"count,omitempty"`
}

// Retentions is what a relay says of it. As relays also write what this does not
// expect, it is only written, and skipped when read.
type Retentions []Retention

// UnmarshalJSON skips the value.
func (*Retentions) UnmarshalJSON([]byte) error { return nil }

// Limitation is what a relay takes at most. Sizes are in bytes, times in
// seconds.
type Limitation struct {
	MaxMessageLength    int   `json:"max_message_length,omitempty"`
	MaxSubscriptions    int   `json:"max_subscriptions,omitempty"`
	MaxFilters          int   `json:"max_filters,omitempty"`
	MaxLimit            int   `json:"max_limit,omitempty"`
	MaxSubIDLength      int   `json:"max_subid_length,omitempty"`
	MaxEventTags        int   `json:"max_event_tags,omitempty"`
	MaxContentLength    int   `json:"max_content_length,omitempty"`
	MinPoWDifficulty    int   `json:"min_pow_difficulty,omitempty"`
	AuthRequired        bool  `json:"auth_required,omitempty"`
	PaymentRequired     bool  `json:"payment_required,omitempty"`
	RestrictedWrites    bool  `json:"restricted_writes,omitempty"`
	CreatedAtLowerLimit int64 `json:"created_at_lower_limit,omitempty"`
	CreatedAtUpperLimit int64 `json:"created_at_upper_limit,omitempty"`
}

// ContentType is what a client accepts to get the description instead of a
// web page.
const ContentType = "application/nostr+json"
