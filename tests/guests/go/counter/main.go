// Command counter writes the lines 1..n to a file, each with exactly one host call.
//
// Every line is 8 digits and a newline, so that line i always starts at byte 9*(i-1) and a repeated or missing
// write shows. Killed and resumed at any point, the file must end up the same.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	n := flag.Int("n", 1000, "lines to write")
	pause := flag.Int("pause", 0, "microseconds between lines")
	appendTo := flag.Bool("append", false, "open with O_APPEND, and don't truncate")
	at := flag.Bool("at", false, "write at explicit offsets (fd_pwrite)")
	echo := flag.Bool("echo", false, "print each line to stdout too")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: counter [-n N] [-pause US] [-append | -at] [-echo] FILE")
		os.Exit(2)
	}

	mode := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if *appendTo {
		mode = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	file, err := os.OpenFile(flag.Arg(0), mode, 0o644)
	check(err)
	for i := 1; i <= *n; i++ {
		line := []byte(fmt.Sprintf("%08d\n", i))
		if *at {
			_, err = file.WriteAt(line, int64(len(line)*(i-1)))
		} else {
			_, err = file.Write(line)
		}
		check(err)
		if *echo {
			os.Stdout.Write(line)
		}
		if *pause > 0 {
			time.Sleep(time.Duration(*pause) * time.Microsecond)
		}
	}
	check(file.Close())
	fmt.Printf("counted to %d\n", *n)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}
