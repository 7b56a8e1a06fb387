//go:build !unix

package keyfile

import "io/fs"

const nonblock = 0

// OpenToOthers reports false: this system's mode bits say nothing about that.
func OpenToOthers(fs.FileInfo) bool { return false }

// checkAccess leaves it to the folder's access list who can read the file:
// this system's mode bits say nothing about that.
func checkAccess(string, fs.FileInfo) error { return nil }
