package world

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// Handler is the web server of the world.
//
//	GET  /               where, who asked: "hello from NAME"
//	GET  /file?size=N    N bytes (FileSize without it), the same every time
//	POST /upload         reads the body, answers "LENGTH SHA256"
func Handler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", name)
	})
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		size := int64(FileSize)
		if text := r.FormValue("size"); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				http.Error(w, "size is a number of bytes", http.StatusBadRequest)
				return
			}
			size = n
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = io.Copy(w, content(size)) // the reader may leave
	})
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		digest, n, err := Digest(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d %s\n", n, digest)
	})
	return mux
}

// FileSize is the length of /file.
const FileSize = 50_000_000

// FileDigest is the SHA-256 of /file?size=N, in hexadecimal.
func FileDigest(size int64) string {
	digest, _, _ := Digest(content(size)) // reading it does not fail
	return digest
}

// Content are the bytes of /file?size=N.
func Content(size int64) io.Reader { return content(size) }

// content is noise, which nothing on the way can compress, other for each size.
func content(size int64) io.Reader {
	var seed [32]byte
	h := fnv.New64a()
	fmt.Fprint(h, size)
	h.Sum(seed[:0])
	return io.LimitReader(rand.NewChaCha8(seed), size)
}

// Digest reads r to its end: the SHA-256 in hexadecimal and the length.
func Digest(r io.Reader) (digest string, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
