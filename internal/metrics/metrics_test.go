package metrics

import (
	"strings"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	var s Set
	Add(&s, "x_sessions", Gauge, "Open sessions.", 3)
	Add(&s, "x_seconds_total", Counter, `Time in C:\, and`+"\nmore.", 1.5)
	AddBy(&s, "x_bytes_total", Counter, "Bytes.", "direction", []Value[int64]{{"sent", 1 << 60}, {`a"b\c` + "\n", 0}})
	AddProcess(&s, "v1.2", time.Unix(1790000000, 5))
	var got strings.Builder
	if _, err := s.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	const want = `# HELP x_sessions Open sessions.
# TYPE x_sessions gauge
x_sessions 3
# HELP x_seconds_total Time in C:\\, and\nmore.
# TYPE x_seconds_total counter
x_seconds_total 1.5
# HELP x_bytes_total Bytes.
# TYPE x_bytes_total counter
x_bytes_total{direction="sent"} 1152921504606846976
x_bytes_total{direction="a\"b\\c\n"} 0
# HELP nws_build_info 1, with the version of the program.
# TYPE nws_build_info gauge
nws_build_info{version="v1.2"} 1
# HELP process_start_time_seconds When the process began, in seconds since 1970.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1790000000
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
