package wire

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The types of messages. CONNECT, CONNECTR and DATA are the NIP's;
// SOCKS5RESPONSE is what the reference implementation sends, both ways, where
// the NIP says DATA; HELLO, WELCOME and REFUSED are ours.
const (
	TypeConnect        = "CONNECT"
	TypeConnectReverse = "CONNECTR"
	TypeData           = "DATA"
	TypeSocks5Response = "SOCKS5RESPONSE"
	TypeHello          = "HELLO"
	TypeWelcome        = "WELCOME"
	TypeRefused        = "REFUSED"
)

// Bounds of what a message may hold, in bytes unless it says otherwise.
const (
	MaxMessage  = 65535     // a whole message: the longest plaintext of NIP-44
	MaxVersions = 16        // entries of Hello.Versions
	MaxIdentity = 8 << 10   // Hello.Identity
	MaxPolicy   = 4 << 10   // Welcome.Policy
	MaxAgent    = 128       // Hello.Agent, Welcome.Agent
	MaxRelays   = 8         // entries of Hello.Relays, Welcome.Relays
	MaxRelayURL = 256       // one of them
	MaxDirect   = 4         // entries of Hello.Direct, Welcome.Direct
	MaxToken    = 128       // Hello.Token
	MaxWork     = 64        // Refused.Work
	maxSpread   = 16        // Hello.Spread
	MaxKey      = 64        // Message.Key: a UUID has 36
	maxAddress  = MaxDest   // Message.Destination, Message.EntryPublicAddress, an entry of Direct
	maxWindow   = maxVarint // every credit
)

// How a dialer would like the listener to use several relays, in Hello.Spread.
// A listener that does not know a value takes it for SpreadPrimary.
const (
	SpreadPrimary = ""       // the best one; the others stand by
	SpreadStripe  = "stripe" // all of them, by their rates
)

// Nonce is the randomness one end puts into a handshake; hexadecimal in JSON.
type Nonce [16]byte

// MarshalText gives lower-case hexadecimal.
func (n Nonce) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, n[:]), nil }

// UnmarshalText reads exactly 32 hexadecimal digits.
func (n *Nonce) UnmarshalText(text []byte) error { return unhex(n[:], text) }

// PublicKey is an x-only public key of BIP-340; hexadecimal in JSON.
type PublicKey [32]byte

// MarshalText gives lower-case hexadecimal.
func (k PublicKey) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText reads exactly 64 hexadecimal digits.
func (k *PublicKey) UnmarshalText(text []byte) error { return unhex(k[:], text) }

func unhex(dst, text []byte) error {
	if hex.DecodedLen(len(text)) != len(dst) || len(text)%2 != 0 {
		return fmt.Errorf("wire: %d hexadecimal digits where %d belong", len(text), 2*len(dst))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("wire: %w", err)
	}
	return nil
}

// Message is one NWS message: the JSON inside an event of kind 28333. Which
// fields mean something depends on Type; the rest is left out of the JSON.
type Message struct {
	Key                string   `json:"key,omitempty"` // the stream's UUID in text; "" in the handshake
	Type               string   `json:"type"`
	Data               []byte   `json:"data,omitempty"` // standard base64 with padding
	Destination        string   `json:"destination,omitempty"`
	EntryPublicAddress string   `json:"entryPublicAddress,omitempty"` // only with CONNECTR
	Hello              *Hello   `json:"hello,omitempty"`              // exactly with HELLO
	Welcome            *Welcome `json:"welcome,omitempty"`            // exactly with WELCOME
	Refused            *Refused `json:"refused,omitempty"`            // exactly with REFUSED
}

// Hello asks an exit for a session. It is sent from a throw-away key to the
// exit's key and is good once, for a minute around Time.
type Hello struct {
	Versions     []int     `json:"versions"`            // of the session protocol, best first
	Nonce        Nonce     `json:"nonce"`               // the dialer's half of the session id
	Time         int64     `json:"time"`                // seconds since 1970
	SessionKey   PublicKey `json:"session_key"`         // fresh; authors the dialer's packets
	MaxPacket    int       `json:"max_packet"`          // the largest packet the dialer can receive
	Window       uint64    `json:"window"`              // initial credit of the session
	StreamWindow uint64    `json:"stream_window"`       // initial credit of a stream
	Identity     string    `json:"identity,omitempty"`  // a signed event (JSON) that proves who dials
	Token        string    `json:"token,omitempty"`     // of an invitation
	Agent        string    `json:"agent,omitempty"`     // software and version, for people
	Relays       []string  `json:"relays,omitempty"`    // URLs that the dialer can use besides
	Spread       string    `json:"spread,omitempty"`    // SpreadPrimary or SpreadStripe
	Duplicate    bool      `json:"duplicate,omitempty"` // small packets over two relays at once, please
	Direct       []string  `json:"direct,omitempty"`    // host:port where the dialer waits for a connection of the listener
}

// Welcome grants the session a Hello asked for.
type Welcome struct {
	Version      int       `json:"version"`     // one of Hello.Versions
	HelloNonce   Nonce     `json:"hello_nonce"` // of the Hello this answers
	Nonce        Nonce     `json:"nonce"`       // the listener's half of the session id
	Time         int64     `json:"time"`
	SessionKey   PublicKey `json:"session_key"` // fresh; authors the listener's packets
	MaxPacket    int       `json:"max_packet"`
	Window       uint64    `json:"window"`
	StreamWindow uint64    `json:"stream_window"`
	MaxStreams   int       `json:"max_streams"`      // open at a time
	Policy       string    `json:"policy,omitempty"` // what may be dialed, for people
	Agent        string    `json:"agent,omitempty"`
	Relays       []string  `json:"relays,omitempty"` // URLs where the listener now listens for this session
	Direct       []string  `json:"direct,omitempty"` // host:port where it waits for a connection of the dialer
}

// Refused denies the session a Hello asked for.
type Refused struct {
	HelloNonce Nonce  `json:"hello_nonce"`
	Code       Code   `json:"code"`
	Text       string `json:"text,omitempty"`
	Time       int64  `json:"time"`
	Work       int    `json:"work,omitempty"` // leading zero bits (NIP-13) that the HELLO's id needs
}

// Err gives the refusal as an error; its code is never CodeNone.
func (r *Refused) Err() error {
	if r.Code == CodeNone {
		return &Error{Code: CodeInternal, Text: r.Text}
	}
	return &Error{Code: r.Code, Text: r.Text}
}

// AppendMessage appends m as JSON to dst. It refuses what ParseMessage would.
func AppendMessage(dst []byte, m *Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return dst, err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return dst, fmt.Errorf("wire: message: %w", err)
	}
	if len(b) > MaxMessage {
		return dst, fmt.Errorf("wire: message of %d bytes, at most %d fit an event", len(b), MaxMessage)
	}
	return append(dst, b...), nil
}

// ParseMessage reads a JSON message and checks that it has the fields its type
// needs, within their bounds. Unknown fields are ignored, an unknown type is an
// error. Nothing in the result refers to b.
func ParseMessage(b []byte) (*Message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("wire: message of %d bytes, at most %d are read", len(b), MaxMessage)
	}
	m := new(Message)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("wire: message: %w", err)
	}
	m.tidy()
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// tidy makes what is empty nil, so that a message is read as it was written.
func (m *Message) tidy() {
	if len(m.Data) == 0 {
		m.Data = nil
	}
	var lists []*[]string
	if m.Hello != nil {
		lists = append(lists, &m.Hello.Relays, &m.Hello.Direct)
	}
	if m.Welcome != nil {
		lists = append(lists, &m.Welcome.Relays, &m.Welcome.Direct)
	}
	for _, list := range lists {
		if len(*list) == 0 {
			*list = nil
		}
	}
}

func (m *Message) check() error {
	if (m.Hello != nil) != (m.Type == TypeHello) ||
		(m.Welcome != nil) != (m.Type == TypeWelcome) ||
		(m.Refused != nil) != (m.Type == TypeRefused) {
		return fmt.Errorf("wire: message of type %.20q with the body of another type", m.Type)
	}
	switch m.Type {
	case TypeHello:
		return m.Hello.check()
	case TypeWelcome:
		return m.Welcome.check()
	case TypeRefused:
		return m.Refused.check()
	case TypeConnect, TypeConnectReverse, TypeData, TypeSocks5Response:
	default:
		return fmt.Errorf("wire: message of unknown type %.20q", m.Type)
	}
	switch {
	case m.Key == "" || len(m.Key) > MaxKey:
		return fmt.Errorf("wire: %s with a key of %d bytes, 1 to %d are allowed", m.Type, len(m.Key), MaxKey)
	case len(m.Destination) > maxAddress:
		return fmt.Errorf("wire: %s with a destination of %d bytes, at most %d are allowed", m.Type, len(m.Destination), maxAddress)
	case len(m.EntryPublicAddress) > maxAddress:
		return fmt.Errorf("wire: %s with an entry address of %d bytes, at most %d are allowed", m.Type, len(m.EntryPublicAddress), maxAddress)
	}
	return nil
}

func (h *Hello) check() error {
	switch {
	case len(h.Versions) == 0 || len(h.Versions) > MaxVersions:
		return fmt.Errorf("wire: HELLO with %d versions, 1 to %d are allowed", len(h.Versions), MaxVersions)
	case len(h.Identity) > MaxIdentity:
		return fmt.Errorf("wire: HELLO with an identity of %d bytes, at most %d are allowed", len(h.Identity), MaxIdentity)
	case len(h.Agent) > MaxAgent:
		return errors.New("wire: HELLO with too long an agent")
	case len(h.Token) > MaxToken:
		return errors.New("wire: HELLO with too long a token")
	case len(h.Spread) > maxSpread:
		return errors.New("wire: HELLO with too long a spread")
	}
	if err := checkRelays(TypeHello, h.Relays); err != nil {
		return err
	}
	if err := checkDirect(TypeHello, h.Direct); err != nil {
		return err
	}
	return checkLimits(TypeHello, h.MaxPacket, h.Window, h.StreamWindow)
}

func (w *Welcome) check() error {
	switch {
	case w.MaxStreams < 1:
		return fmt.Errorf("wire: WELCOME for %d streams, at least 1 is needed", w.MaxStreams)
	case len(w.Policy) > MaxPolicy:
		return fmt.Errorf("wire: WELCOME with a policy of %d bytes, at most %d are allowed", len(w.Policy), MaxPolicy)
	case len(w.Agent) > MaxAgent:
		return errors.New("wire: WELCOME with too long an agent")
	}
	if err := checkRelays(TypeWelcome, w.Relays); err != nil {
		return err
	}
	if err := checkDirect(TypeWelcome, w.Direct); err != nil {
		return err
	}
	return checkLimits(TypeWelcome, w.MaxPacket, w.Window, w.StreamWindow)
}

func (r *Refused) check() error {
	if len(r.Text) > MaxText {
		return fmt.Errorf("wire: REFUSED with a text of %d bytes, at most %d are allowed", len(r.Text), MaxText)
	}
	if r.Work < 0 || r.Work > MaxWork {
		return fmt.Errorf("wire: REFUSED for want of %d bits of work, 0 to %d are allowed", r.Work, MaxWork)
	}
	return nil
}

// checkRelays holds the bounds only; whether to use a URL that a peer sent is
// for its reader to decide.
func checkRelays(what string, urls []string) error {
	if len(urls) > MaxRelays {
		return fmt.Errorf("wire: %s with %d relays, at most %d are allowed", what, len(urls), MaxRelays)
	}
	for _, u := range urls {
		if u == "" || len(u) > MaxRelayURL || !utf8.ValidString(u) || strings.ContainsFunc(u, notInURL) {
			return fmt.Errorf("wire: %s with the relay %.40q, which is no URL of 1 to %d bytes", what, u, MaxRelayURL)
		}
	}
	return nil
}

// checkDirect holds the form only; whether to connect to an address that a peer
// sent is for its reader to decide.
func checkDirect(what string, addresses []string) error {
	if len(addresses) > MaxDirect {
		return fmt.Errorf("wire: %s with %d addresses, at most %d are allowed", what, len(addresses), MaxDirect)
	}
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		n, nan := strconv.ParseUint(port, 10, 16)
		if err != nil || nan != nil || n == 0 || host == "" || len(a) > maxAddress ||
			!utf8.ValidString(a) || strings.ContainsFunc(a, notInURL) {
			return fmt.Errorf("wire: %s with the address %.40q, which is not host:port", what, a)
		}
	}
	return nil
}

func notInURL(r rune) bool { return r == ' ' || notPrintable(r) }

func checkLimits(what string, maxPacket int, window, streamWindow uint64) error {
	switch {
	case maxPacket < MinMaxPacket || maxPacket > MaxMessage:
		return fmt.Errorf("wire: %s with packets of at most %d bytes, %d to %d are allowed", what, maxPacket, MinMaxPacket, MaxMessage)
	case window > maxWindow || streamWindow > maxWindow:
		return fmt.Errorf("wire: %s with a window above 2^62-1", what)
	}
	return nil
}
