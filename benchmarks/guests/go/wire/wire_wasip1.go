// Package wire listens and dials with what a guest has for it, or, built natively, with the standard library.
package wire

import "github.com/stealthrocket/net/wasip1"

var (
	Listen = wasip1.Listen
	Dial   = wasip1.Dial
)
