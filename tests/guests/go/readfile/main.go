// Command readfile reads a file in 64 KiB pieces and prints its size and checksum. With -step it prints the checksum so
// far behind each piece, and waits for a byte of standard input.
package main

import (
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

func main() {
	step := flag.Bool("step", false, "wait behind each piece")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: readfile [-step] FILE")
		os.Exit(2)
	}
	f, err := os.Open(flag.Arg(0))
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
		if *step && n > 0 {
			fmt.Printf("%08x\n", sum)
			os.Stdin.Read(make([]byte, 1))
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
