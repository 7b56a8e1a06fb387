//go:build !amd64

package sha2x

const available = false

func blocks1(*[8]uint32, []byte, int) { panic("sha2x: not available") }

func blocks2(*[8]uint32, []byte, *[8]uint32, []byte, int) { panic("sha2x: not available") }
