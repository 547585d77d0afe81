// Command readfile reads a file in 64 KiB pieces and prints its size and checksum.
package main

import (
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: readfile FILE")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buf := make([]byte, 64<<10)
	var sum uint32
	var size, calls int
	for {
		n, err := f.Read(buf)
		if n > 0 {
			sum = crc32.Update(sum, crc32.IEEETable, buf[:n])
			size += n
			calls++
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Printf("%d bytes, %d reads, crc32 %08x\n", size, calls, sum)
}
