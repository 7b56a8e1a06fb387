package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip11"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// Info is a relay's description of itself; see [nip11.Info].
type Info = nip11.Info

// maxInfo bounds the description in bytes.
const maxInfo = 64 << 10

// FetchInfo asks the relay at a ws:// or wss:// URL for its description. Of the
// options it uses DialContext, TLS and ReplyTimeout. It follows no redirect and
// uses no proxy. Fields of the wrong type are left zero, since some relays write
// numbers as strings.
func FetchInfo(ctx context.Context, rawURL string, opts Options) (Info, error) {
	if err := ws.CheckURL(rawURL); err != nil {
		return Info{}, fmt.Errorf("relay: %w", err)
	}
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opts.ReplyTimeout)
	defer cancel()
	// It is short, and asked for only once: it has to get through.
	body, err := fetch(segments.Small(ctx), rawURL, opts)
	if err != nil {
		return Info{}, fmt.Errorf("relay %s: description (NIP-11): %w", rawURL, err)
	}
	var info Info
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &info); err != nil && !errors.As(err, &wrongType) {
		return Info{}, fmt.Errorf("relay %s: description (NIP-11): %w", rawURL, err)
	}
	return info, nil
}

func fetch(ctx context.Context, rawURL string, opts Options) ([]byte, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	u.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", nip11.ContentType)
	req.Header.Set("User-Agent", "nws-vpn")
	client := http.Client{
		Transport: &http.Transport{
			DialContext:            opts.DialContext,
			TLSClientConfig:        opts.TLS,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxInfo,
			TLSHandshakeTimeout:    time.Minute, // ctx is shorter
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered HTTP %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxInfo+1))
	if err == nil && len(body) > maxInfo {
		err = fmt.Errorf("it is larger than %d bytes", maxInfo)
	}
	return body, err
}
