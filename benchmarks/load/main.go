// Command load is the other side of network benchmarks, native:
//
//	load http ADDRESS CONNECTIONS DURATION  asks / over and over on each connection; prints rate and latencies
//	load echo ADDRESS CONNECTIONS DURATION  the same with lines of 64 bytes, which must come back
//	load accept                             accepts connections on a free port until they are closed
//	load hold ADDRESS COUNT                 opens connections and keeps them until its standard input ends
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const request = "GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"

var (
	headEnd = []byte("\r\n\r\n")
	length  = []byte("\r\nContent-Length: ")
	line    = append(bytes.Repeat([]byte("x"), 63), '\n')
)

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// exchange asks once and reads the answer. It does no more than it must, so that servers get the processors.
func exchange(c net.Conn, buffer []byte) {
	_, err := io.WriteString(c, request)
	must(err)
	for have, need := 0, -1; need < 0 || have < need; {
		n, err := c.Read(buffer[have:])
		must(err)
		have += n
		if end := bytes.Index(buffer[:have], headEnd); need < 0 && end >= 0 {
			_, digits, found := bytes.Cut(buffer[:end+2], length)
			digits, _, _ = bytes.Cut(digits, []byte("\r\n"))
			body, err := strconv.Atoi(string(digits))
			must(err)
			if !found || !bytes.HasPrefix(buffer, []byte("HTTP/1.1 200 ")) {
				must(fmt.Errorf("answer: %.40q", buffer[:end]))
			}
			need = end + len(headEnd) + body
		}
	}
}

// echo sends a line and waits until it is back.
func echo(c net.Conn, buffer []byte) {
	_, err := c.Write(line)
	must(err)
	_, err = io.ReadFull(c, buffer[:len(line)])
	must(err)
	if !bytes.Equal(buffer[:len(line)], line) {
		must(fmt.Errorf("answer: %.40q", buffer[:len(line)]))
	}
}

// ask keeps one connection busy; it counts all exchanges, and returns how long those took that began in time.
func ask(exchange func(net.Conn, []byte), address string, begin, end time.Time, count *atomic.Int64) (took []time.Duration) {
	c, err := net.Dial("tcp", address)
	must(err)
	defer c.Close()
	buffer := make([]byte, 4096)
	for now := time.Now(); now.Before(end); {
		exchange(c, buffer)
		count.Add(1)
		last := now
		now = time.Now()
		if last.After(begin) {
			took = append(took, now.Sub(last))
		}
	}
	return
}

func load(exchange func(net.Conn, []byte), address string, connections int, duration time.Duration) {
	warm := time.Now().Add(duration / 5) // what is asked before isn't timed, but counted
	end := warm.Add(duration)
	var wg sync.WaitGroup
	var count atomic.Int64
	all := make([][]time.Duration, connections)
	for i := range connections {
		wg.Add(1)
		go func() {
			defer wg.Done()
			all[i] = ask(exchange, address, warm, end, &count)
		}()
	}
	wg.Wait()
	took := slices.Concat(all...)
	slices.Sort(took)
	at := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Nanoseconds()) / 1000
	}
	fmt.Printf("requests %d all\nrate %.1f /s\n", count.Load(), float64(len(took))/duration.Seconds())
	fmt.Printf("p50 %.1f us\np99 %.1f us\np999 %.1f us\n", at(0.5), at(0.99), at(0.999))
}

func accept() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println("listening", l.Addr())
	for {
		c, err := l.Accept()
		must(err)
		go func() {
			c.Read(make([]byte, 1))       // until the other side is done
			c.(*net.TCPConn).SetLinger(0) // so that it needn't keep the port for a while
			c.Close()
		}()
	}
}

func hold(address string, count int) {
	held := make([]net.Conn, count)
	for i := range held {
		c, err := net.Dial("tcp", address)
		must(err)
		held[i] = c
	}
	fmt.Println("holding", count)
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(held)
}

func main() {
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		must(err)
		return n
	}
	switch os.Args[1] {
	case "http", "echo":
		duration, err := time.ParseDuration(os.Args[4])
		must(err)
		load(map[string]func(net.Conn, []byte){"http": exchange, "echo": echo}[os.Args[1]], os.Args[2], number(os.Args[3]), duration)
	case "accept":
		accept()
	case "hold":
		hold(os.Args[2], number(os.Args[3]))
	}
}
