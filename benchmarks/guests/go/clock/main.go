//go:build wasip1

// Command clock makes raw clock_time_get calls: clock [N]. Prints the mean of one.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"
)

//go:wasmimport wasi_snapshot_preview1 clock_time_get
//go:noescape
func clockTimeGet(id uint32, precision uint64, result unsafe.Pointer) uint32

func main() {
	n := 10_000_000
	if len(os.Args) > 1 {
		n, _ = strconv.Atoi(os.Args[1])
	}
	var now uint64
	start := time.Now()
	for range n {
		if errno := clockTimeGet(1, 1, unsafe.Pointer(&now)); errno != 0 {
			fmt.Println("errno", errno)
			os.Exit(1)
		}
	}
	fmt.Printf("clock %.2f ns\n", float64(time.Since(start).Nanoseconds())/float64(n))
}
