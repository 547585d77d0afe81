// Command tls lets the host do TLS on a connection: it says a line and shows the answer, and what was agreed upon.
// Usage: tls NAME:PORT SERVER [PROTOCOLS].
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"github.com/stealthrocket/net/wasip1"
)

const (
	levelHost  = 0x74696d65
	optionTLS  = 1
	optionALPN = 2
)

//go:wasmimport wasi_snapshot_preview1 sock_setsockopt
func setsockopt(fd int32, level, name uint32, value unsafe.Pointer, size uint32) syscall.Errno

//go:wasmimport wasi_snapshot_preview1 sock_getsockopt
func getsockopt(fd int32, level, name uint32, value unsafe.Pointer, size uint32) syscall.Errno

func check(what string, err error) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func control(conn net.Conn, call func(fd int32) syscall.Errno) error {
	raw, err := conn.(syscall.Conn).SyscallConn()
	check("raw", err)
	var errno syscall.Errno
	check("control", raw.Control(func(fd uintptr) { errno = call(int32(fd)) }))
	if errno != 0 {
		return errno
	}
	return nil
}

func set(conn net.Conn, option uint32, value string) {
	check("setsockopt", control(conn, func(fd int32) syscall.Errno {
		return setsockopt(fd, levelHost, option, unsafe.Pointer(unsafe.StringData(value)), uint32(len(value)))
	}))
}

func main() {
	conn, err := wasip1.Dial("tcp", os.Args[1])
	check("dial", err)
	peer := conn.RemoteAddr().String()
	if len(os.Args) > 3 {
		set(conn, optionALPN, os.Args[3])
	}
	set(conn, optionTLS, os.Args[2])
	_, err = fmt.Fprintln(conn, "hello")
	check("write", err)
	answer := make([]byte, 100)
	count, err := conn.Read(answer)
	check("read", err)
	protocol := make([]byte, 64)
	check("getsockopt", control(conn, func(fd int32) syscall.Errno {
		return getsockopt(fd, levelHost, optionALPN, unsafe.Pointer(&protocol[0]), uint32(len(protocol)))
	}))
	fmt.Printf("%s says %s", peer, answer[:count])
	text, _, _ := bytes.Cut(protocol, []byte{0})
	fmt.Printf("agreed upon %q\n", text)
	check("half-close", conn.(interface{ CloseWrite() error }).CloseWrite())
	rest, err := io.ReadAll(conn)
	check("read", err)
	fmt.Printf("and then %s\n", rest)
}
