package relay_test

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip11"
)

func TestFetchInfo(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		want       relay.Info
		err        string
	}{
		{name: "all", body: `{"name":"n","supported_nips":[1,11],"limitation":{"max_message_length":70000,"auth_required":true},"fees":{}}`,
			want: relay.Info{Name: "n", SupportedNIPs: []int{1, 11}, Limitation: nip11.Limitation{MaxMessageLength: 70000, AuthRequired: true}}},
		{name: "wrong types", body: `{"name":7,"supported_nips":["1"],"limitation":{"max_filters":"x","max_limit":5}}`,
			want: relay.Info{SupportedNIPs: []int{0}, Limitation: nip11.Limitation{MaxLimit: 5}}},
		{name: "not found", status: 404, err: "answered HTTP 404"},
		{name: "redirect", status: 302, err: "answered HTTP 302"},
		{name: "web page", body: `<html>`, err: "description (NIP-11): invalid character"},
		{name: "endless", body: strings.Repeat(" ", 1<<20), err: "larger than 65536 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Accept") != nip11.ContentType {
					t.Errorf("asked for %q", r.Header.Get("Accept"))
				}
				if tt.status != 0 {
					w.WriteHeader(tt.status)
				}
				w.Write([]byte(tt.body))
			}))
			defer s.Close()
			url := strings.Replace(s.URL, "http", "ws", 1)
			got, err := relay.FetchInfo(t.Context(), url, relay.Options{})
			if tt.err != "" {
				wantError(t, err, "relay "+url, tt.err)
			} else if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	_, err := relay.FetchInfo(t.Context(), "https://x", relay.Options{})
	wantError(t, err, "does not begin with ws:// or wss://")
}
