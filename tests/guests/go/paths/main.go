// Command paths serves on a listener that is a file, and connects to it over files, with nothing but the standard
// library.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
)

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// open opens a socket for package net, which takes files of os.NewFile, and of those that don't block.
func open(path string) (*os.File, error) {
	fd, err := syscall.Open(path, syscall.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func listen(address string) net.Listener {
	file, err := open("/dev/listen/tcp/" + address)
	check(err)
	listener, err := net.FileListener(file)
	check(err)
	return listener
}

func dial(network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	file, err := open("/dev/" + network + "/" + host + "/" + port)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return net.FileConn(file)
}

func refused(network, address string, expected error) {
	_, err := dial(network, address)
	fmt.Printf("%s %s: %v\n", network, address, errors.Is(err, expected))
}

func main() {
	listener := listen("8080")
	go func() {
		for {
			conn, err := listener.Accept()
			check(err)
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	var all sync.WaitGroup
	for i := range 50 {
		all.Add(1)
		go func() {
			defer all.Done()
			conn, err := dial("tcp", "localhost:8080")
			check(err)
			defer conn.Close()
			text := strings.Repeat("x", i*1000) + "\n"
			go io.WriteString(conn, text)
			line, err := bufio.NewReader(conn).ReadString('\n')
			check(err)
			if line != text {
				check(fmt.Errorf("got %d bytes, want %d", len(line), len(text)))
			}
		}()
	}
	all.Wait()
	fmt.Println("50 echoes")

	sixth := listen("::1/9090")
	go func() {
		conn, err := sixth.Accept()
		check(err)
		fmt.Fprintln(conn, "over IPv6")
		check(conn.Close())
	}()
	// A plain file does, too: Go polls it like any other.
	file, err := os.OpenFile("/dev/tcp/[::1]/9090", os.O_RDWR, 0)
	check(err)
	line, err := bufio.NewReader(file).ReadString('\n')
	check(err)
	fmt.Print(line)

	refused("tcp", "127.0.0.1:9", syscall.ECONNREFUSED)
	refused("tcp", "10.0.0.1:80", syscall.EACCES)
	refused("tcp", "no.such.name:80", syscall.ENOENT)
	refused("udp", "10.0.0.1:53", syscall.EACCES)
}
