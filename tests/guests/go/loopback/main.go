// Command loopback serves and dials on its own loopback: TCP, UDP, Unix and HTTP, with no grant. Beyond it there is nothing.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/stealthrocket/net/wasip1"
)

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func main() {
	for _, c := range [][2]string{{"tcp", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"unix", "/run/x.sock"}} {
		l, err := wasip1.Listen(c[0], c[1])
		check(err)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(conn, conn); conn.(interface{ CloseWrite() error }).CloseWrite(); conn.Close() }()
			}
		}()
		var wg sync.WaitGroup
		for i := 0; i < 200; i++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				conn, err := wasip1.Dial(l.Addr().Network(), l.Addr().String())
				check(err)
				defer conn.Close()
				fmt.Fprintf(conn, "hello %d\n", i)
				line, err := bufio.NewReader(conn).ReadString('\n')
				check(err)
				if line != fmt.Sprintf("hello %d\n", i) {
					check(fmt.Errorf("got %q", line))
				}
			}()
		}
		wg.Wait()
		l.Close()
		fmt.Println(c[0], "ok")
	}
	p, err := wasip1.ListenPacket("udp", "127.0.0.1:0")
	check(err)
	u, err := wasip1.Dial("udp", p.LocalAddr().String())
	check(err)
	_, err = u.Write([]byte("ping"))
	check(err)
	b := make([]byte, 100)
	n, from, err := p.ReadFrom(b)
	check(err)
	_, err = p.WriteTo(b[:n], from)
	check(err)
	n, err = u.Read(b)
	check(err)
	fmt.Println("udp", string(b[:n]))

	l, err := wasip1.Listen("tcp", "127.0.0.1:8080")
	check(err)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hi", r.URL.Path) }))
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return wasip1.DialContext(ctx, network, addr)
	}}}
	for i := 0; i < 3; i++ {
		r, err := client.Get("http://localhost:8080/x")
		if err != nil {
			r, err = client.Get("http://127.0.0.1:8080/x")
		}
		check(err)
		body, _ := io.ReadAll(r.Body)
		fmt.Print(r.Status, " ", string(body))
	}
	_, err = wasip1.Dial("tcp", "127.0.0.1:1")
	fmt.Println(err)
	_, err = wasip1.Dial("tcp", "8.8.8.8:53")
	fmt.Println(err)
}
