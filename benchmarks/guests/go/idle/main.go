// Command idle holds the connections that it is given: idle ADDRESS COUNT. Says so when it has all of them.
package main

import (
	"fmt"
	"os"
	"strconv"

	"benchguests/wire"
)

func main() {
	l, err := wire.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	count, _ := strconv.Atoi(os.Args[2])
	fmt.Println("listening", l.Addr())
	for range count {
		c, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		go func() { c.Read(make([]byte, 1)) }()
	}
	fmt.Println("holding", count)
	select {}
}
