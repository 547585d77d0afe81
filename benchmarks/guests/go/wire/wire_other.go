//go:build !wasip1

package wire

import "net"

var (
	Listen = net.Listen
	Dial   = net.Dial
)
