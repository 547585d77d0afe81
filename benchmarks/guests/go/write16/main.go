//go:build wasip1

// Command write16 makes raw fd_write calls of 16 bytes: write16 [N [FILE]]. FILE is best /dev/null, mounted as
// /dev; without it, the bytes go to stderr, to be redirected. Prints the mean of one call.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

//go:wasmimport wasi_snapshot_preview1 fd_write
//go:noescape
func fdWrite(fd uint32, iovs unsafe.Pointer, n uint32, written unsafe.Pointer) uint32

var (
	text = [16]byte{'f', 'i', 'f', 't', 'e', 'e', 'n', ' ', 'l', 'e', 't', 't', 'e', 'r', 's', '\n'}
	iov  [2]uint32
	done uint32
)

func main() {
	n, fd := 1_000_000, 2
	if len(os.Args) > 1 {
		n, _ = strconv.Atoi(os.Args[1])
	}
	if len(os.Args) > 2 {
		var err error
		if fd, err = syscall.Open(os.Args[2], syscall.O_WRONLY, 0); err != nil {
			fmt.Println(os.Args[2], err)
			os.Exit(1)
		}
	}
	iov = [2]uint32{uint32(uintptr(unsafe.Pointer(&text))), 16}
	start := time.Now()
	for range n {
		if errno := fdWrite(uint32(fd), unsafe.Pointer(&iov), 1, unsafe.Pointer(&done)); errno != 0 || done != 16 {
			fmt.Println("errno", errno, "wrote", done)
			os.Exit(1)
		}
	}
	fmt.Printf("write16 %.2f ns\n", float64(time.Since(start).Nanoseconds())/float64(n))
}
