// Command stream sends messages of 64 KiB: stream receive ADDRESS serves, stream send ADDRESS COUNT prints MiB/s.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"benchguests/wire"
)

const size = 64 << 10

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// receive reads messages until the sender is done, and confirms the last with a byte.
func receive(address string) {
	l, err := wire.Listen("tcp", address)
	must(err)
	fmt.Println("listening", l.Addr())
	message := make([]byte, size)
	for {
		c, err := l.Accept()
		must(err)
		for last := false; !last; last = message[0] == 1 {
			_, err = io.ReadFull(c, message)
			must(err)
		}
		_, err = c.Write(message[:1])
		must(err)
		c.Close()
	}
}

func send(address string, count int) {
	c, err := wire.Dial("tcp", address)
	must(err)
	message := make([]byte, size)
	start := time.Now()
	for i := range count {
		if i == count-1 {
			message[0] = 1
		}
		_, err = c.Write(message)
		must(err)
	}
	_, err = io.ReadFull(c, message[:1])
	must(err)
	fmt.Printf("stream %.1f MiB/s\n", float64(count)*size/(1<<20)/time.Since(start).Seconds())
}

func main() {
	if os.Args[1] == "receive" {
		receive(os.Args[2])
	}
	count, err := strconv.Atoi(os.Args[3])
	must(err)
	send(os.Args[2], count)
}
