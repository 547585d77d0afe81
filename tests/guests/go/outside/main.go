// Command outside speaks to the world's network: it dials by name, is refused, and serves as many connections as it is
// told. Usage: outside NAME:PORT COUNT.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/stealthrocket/net/wasip1"
)

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func exchange(conn net.Conn, text string) string {
	fmt.Fprintf(conn, "%s\n", text)
	line, err := bufio.NewReader(conn).ReadString('\n')
	check(err)
	return line
}

func main() {
	conn, err := wasip1.Dial("tcp", os.Args[1])
	check(err)
	fmt.Print("dialled ", conn.RemoteAddr(), ": ", exchange(conn, "hello"))
	conn.Close()

	_, err = wasip1.Dial("tcp", "192.0.2.1:81")
	fmt.Println("refused:", err)

	listener, err := wasip1.Listen("tcp", "0.0.0.0:8080")
	check(err)
	fmt.Println("listening")
	count, err := strconv.Atoi(os.Args[2])
	check(err)
	for range count {
		conn, err := listener.Accept()
		check(err)
		line, err := bufio.NewReader(conn).ReadString('\n')
		check(err)
		fmt.Fprintf(conn, "you said %s", line)
		conn.Close()
	}
	fmt.Println("served", count)
}
