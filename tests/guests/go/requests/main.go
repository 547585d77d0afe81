// Command requests asks a server of its own, on its own loopback: -n requests on -c kept-alive connections, or one of
// each kind of exchange that HTTP/1.1 has.
package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/stealthrocket/net/wasip1"
)

const address = "127.0.0.1:8080"

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func serve() {
	listener, err := wasip1.Listen("tcp", address)
	check(err)
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s\n", r.URL.RawQuery) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Bytes")
		count, err := io.Copy(w, r.Body)
		check(err)
		w.Header().Set("X-Bytes", fmt.Sprint(count))
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, strings.Repeat("compressed \x1b[31mtext\n", 20))
		check(z.Close())
	})
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscan(r.URL.RawQuery, &status)
		w.WriteHeader(status)
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		check(err)
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, err := rw.ReadString('\n')
		check(err)
		fmt.Fprint(conn, line)
		conn.Close()
	})
	go http.Serve(listener, mux)
}

func client() *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		return wasip1.DialContext(ctx, network, addr)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, ExpectContinueTimeout: time.Minute}}
}

func ask(client *http.Client, method, path string, body io.Reader, header ...string) {
	request, err := http.NewRequest(method, "http://"+address+path, body)
	check(err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(request)
	check(err)
	content, err := io.ReadAll(response.Body)
	check(err)
	response.Body.Close()
	fmt.Println(method, path, response.StatusCode, len(content))
}

// raw sends bytes on a connection of its own, and reads to the end.
func raw(text string) {
	conn, err := wasip1.Dial("tcp", address)
	check(err)
	_, err = io.WriteString(conn, text)
	check(err)
	content, err := io.ReadAll(bufio.NewReader(conn))
	check(err)
	conn.Close()
	fmt.Println("raw", strings.Count(string(content), "HTTP/1."), "answers")
}

func each() {
	it := client()
	ask(it, "GET", "/hello?1", nil)
	ask(it, "POST", "/echo", strings.NewReader("a body of known length"))
	reader, writer := io.Pipe()
	go func() {
		fmt.Fprint(writer, "in ")
		fmt.Fprint(writer, "chunks")
		writer.Close()
	}()
	ask(it, "PUT", "/echo", reader)
	ask(it, "POST", "/echo", strings.NewReader("waits for 100"), "Expect", "100-continue")
	ask(it, "GET", "/gzip", nil)
	ask(it, "HEAD", "/hello?2", nil)
	ask(it, "GET", "/status?204", nil)
	ask(it, "GET", "/status?304", nil)
	ask(it, "GET", "/none", nil)
	get := "GET /hello?%d HTTP/1.1\r\nHost: x\r\n%s\r\n"
	raw(fmt.Sprintf(get, 3, "") + fmt.Sprintf(get, 4, "") + fmt.Sprintf(get, 5, "Connection: close\r\n"))
	raw("GET /hello?6 HTTP/1.0\r\n\r\n")
	raw("GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nGET / HTTP/1.1\r\n")
	raw("GET /bad HTTP/1.1\r\nno colon\r\n\r\n")
}

func main() {
	n := flag.Int("n", 0, "requests on each connection; 0: one of each kind")
	c := flag.Int("c", 1, "connections")
	flag.Parse()
	serve()
	if *n == 0 {
		each()
		return
	}
	done := make(chan bool)
	for i := 0; i < *c; i++ {
		go func() {
			it := client()
			for j := 0; j < *n; j++ {
				response, err := it.Get(fmt.Sprintf("http://%s/hello?%d.%d", address, i, j))
				check(err)
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			done <- true
		}()
	}
	for i := 0; i < *c; i++ {
		<-done
	}
	fmt.Println(*n**c, "requests")
}
