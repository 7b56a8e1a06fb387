// Package labtest gives a test a lab of its own (see netlab), closed when the
// test ends, or skips it where there are not the rights for one.
package labtest
