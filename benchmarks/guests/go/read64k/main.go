//go:build wasip1

// Command read64k reads a file in raw fd_read calls of 64 KiB, over and over until it has read enough:
// read64k FILE [BYTES], by default 1 GiB. Prints the mean of one call, seeks included, and the bytes read.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

//go:wasmimport wasi_snapshot_preview1 fd_read
//go:noescape
func fdRead(fd uint32, iovs unsafe.Pointer, n uint32, read unsafe.Pointer) uint32

var (
	buf  [64 << 10]byte
	iov  [2]uint32
	done uint32
)

func main() {
	if len(os.Args) < 2 {
		fmt.Println("usage: read64k FILE [BYTES]")
		os.Exit(2)
	}
	total := 1 << 30
	if len(os.Args) > 2 {
		total, _ = strconv.Atoi(os.Args[2])
	}
	fd, err := syscall.Open(os.Args[1], syscall.O_RDONLY, 0)
	check(err)
	iov = [2]uint32{uint32(uintptr(unsafe.Pointer(&buf))), uint32(len(buf))}
	size, calls, sum, fresh := 0, 0, 0, true
	start := time.Now()
	for size < total {
		if errno := fdRead(uint32(fd), unsafe.Pointer(&iov), 1, unsafe.Pointer(&done)); errno != 0 {
			check(syscall.Errno(errno))
		}
		if done == 0 {
			if fresh {
				fmt.Println("the file is empty")
				os.Exit(1)
			}
			_, err = syscall.Seek(fd, 0, 0)
			check(err)
			fresh = true
			continue
		}
		fresh = false
		size += int(done)
		sum += int(buf[0])
		calls++
	}
	spent := time.Since(start)
	fmt.Printf("read64k %.3f us\n", float64(spent.Nanoseconds())/1e3/float64(calls))
	fmt.Printf("read64k_total %d bytes\n", size)
	fmt.Printf("read64k_check %d sum\n", sum)
}

func check(err error) {
	if err != nil {
		fmt.Println("read64k:", err)
		os.Exit(1)
	}
}
