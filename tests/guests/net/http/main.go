// Command http serves and asks HTTP/1.1 and cleartext HTTP/2 on its own loopback: keep-alive, pipelining, chunks,
// trailers, compression, large bodies, many streams on one connection, streams both ways, cancellation, shutdown.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stealthrocket/net/wasip1"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"guests/verify"
)

const large = 4 << 20

// counting is a listener that knows how many connections it took.
type counting struct {
	net.Listener
	accepted atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// site is a server, and what happened in it.
type site struct {
	url      string
	listener *counting
	server   *http.Server
	begun    chan struct{} // a request that takes its time
	canceled chan struct{}
}

func serve() *site {
	s := &site{
		listener: &counting{Listener: verify.Get(wasip1.Listen("tcp", "127.0.0.1:0"))},
		begun:    make(chan struct{}, 1),
		canceled: make(chan struct{}, 1),
	}
	s.url = "http://" + s.listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", hello)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/count", count)
	mux.HandleFunc("/chunks", chunks)
	mux.HandleFunc("/gzip", zipped)
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		s.begun <- struct{}{}
		time.Sleep(50 * time.Millisecond)
		io.WriteString(w, "slow, but sure")
	})
	mux.HandleFunc("/hijack", hijack)
	mux.Handle("/moved", http.RedirectHandler("/hello", http.StatusFound))
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		s.begun <- struct{}{}
		<-r.Context().Done()
		s.canceled <- struct{}{}
	})
	s.server = &http.Server{Handler: h2c.NewHandler(mux, &http2.Server{})}
	go s.server.Serve(s.listener)
	return s
}

func hello(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello by %s", r.Proto) }

// echo answers as the request's bytes come, and sends their digest as a trailer.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Digest")
	control := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		verify.Must(control.EnableFullDuplex())
	}
	w.WriteHeader(http.StatusOK)
	control.Flush()
	hash, buffer := sha256.New(), make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buffer)
		hash.Write(buffer[:n])
		w.Write(buffer[:n])
		control.Flush()
		if err != nil {
			break
		}
	}
	w.Header().Set("X-Digest", fmt.Sprintf("%x", hash.Sum(nil)))
}

// count answers when it has the whole request.
func count(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, verify.Get(io.Copy(io.Discard, r.Body)), " bytes")
}

func chunks(w http.ResponseWriter, r *http.Request) {
	for i := range 100 {
		fmt.Fprintf(w, "chunk %d\n", i)
		w.(http.Flusher).Flush()
	}
}

func zipped(w http.ResponseWriter, r *http.Request) {
	verify.That(r.Header.Get("Accept-Encoding") == "gzip", "no gzip wanted")
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	z.Write(bytes.Repeat([]byte("well compressible "), 10000))
	z.Close()
}

// hijack takes the connection and echoes lines: what WebSockets do.
func hijack(w http.ResponseWriter, r *http.Request) {
	conn, both, err := w.(http.Hijacker).Hijack()
	verify.Must(err)
	defer conn.Close()
	both.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
	both.Flush()
	for {
		line, err := both.ReadString('\n')
		if err != nil {
			return
		}
		both.WriteString(strings.ToUpper(line))
		both.Flush()
	}
}

func http1() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: wasip1.DialContext, MaxIdleConnsPerHost: 100}}
}

func http2Client() *http.Client {
	return &http.Client{Transport: &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return wasip1.DialContext(ctx, network, address)
		},
	}}
}

func body(r *http.Response, err error) string {
	verify.Must(err)
	defer r.Body.Close()
	verify.That(r.StatusCode == http.StatusOK, "%s", r.Status)
	return string(verify.Get(io.ReadAll(r.Body)))
}

// pattern is n bytes that differ by seed.
func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed)
	}
	return b
}

func simple(s *site, client *http.Client, proto string) {
	for range 20 {
		verify.That(body(client.Get(s.url+"/hello")) == "hello by "+proto, "another protocol")
	}
	verify.That(s.listener.accepted.Load() == 1, "%d connections for one client", s.listener.accepted.Load())
	verify.That(body(client.Get(s.url+"/moved")) == "hello by "+proto, "not redirected")
	head := verify.Get(client.Head(s.url + "/hello"))
	verify.That(head.ContentLength == int64(len("hello by "+proto)), "HEAD: length %d", head.ContentLength)
	missing := verify.Get(client.Get(s.url + "/missing"))
	verify.That(missing.StatusCode == http.StatusNotFound, "%s", missing.Status)
	missing.Body.Close()
}

func concurrent(s *site, client *http.Client, proto string) {
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			sent := pattern(10_000+i, i)
			verify.That(body(client.Post(s.url+"/echo", "x/y", bytes.NewReader(sent))) == string(sent), "echo %d differs", i)
		}()
	}
	wg.Wait()
	if proto == "HTTP/2.0" {
		verify.That(s.listener.accepted.Load() == 1, "%d connections for many streams", s.listener.accepted.Load())
	}
}

func largeBody(s *site, client *http.Client, proto string) {
	sent := pattern(large, 1)
	for _, reader := range []io.Reader{bytes.NewReader(sent), io.MultiReader(bytes.NewReader(sent))} { // of known length, or not
		r := verify.Get(client.Post(s.url+"/echo", "x/y", reader))
		verify.That(bytes.Equal(verify.Get(io.ReadAll(r.Body)), sent), "bytes differ")
		verify.That(r.Trailer.Get("X-Digest") == fmt.Sprintf("%x", sha256.Sum256(sent)), "trailer %v", r.Trailer)
		r.Body.Close()
	}
}

// bothWays has each part of the request answered before the next is sent.
func bothWays(s *site, client *http.Client, proto string) {
	read, write := io.Pipe()
	r := verify.Get(client.Do(verify.Get(http.NewRequest("POST", s.url+"/echo", read))))
	lines := bufio.NewReader(r.Body)
	for i := range 50 {
		fmt.Fprintf(write, "part %d\n", i)
		verify.That(verify.Get(lines.ReadString('\n')) == fmt.Sprintf("part %d\n", i), "part %d", i)
	}
	write.Close()
	verify.That(len(verify.Get(io.ReadAll(lines))) == 0, "more than was sent")
	r.Body.Close()
}

func streamed(s *site, client *http.Client, proto string) {
	r := verify.Get(client.Get(s.url + "/chunks"))
	verify.That(r.ContentLength == -1, "length %d", r.ContentLength)
	verify.That(proto != "HTTP/1.1" || r.TransferEncoding[0] == "chunked", "not chunked")
	lines := bufio.NewScanner(r.Body)
	count := 0
	for ; lines.Scan(); count++ {
		verify.That(lines.Text() == fmt.Sprintf("chunk %d", count), "%q", lines.Text())
	}
	verify.That(count == 100, "%d chunks", count)
	r.Body.Close()
	verify.That(len(body(client.Get(s.url+"/gzip"))) == 180_000, "compressed badly")
}

func canceled(s *site, client *http.Client, proto string) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-s.begun; cancel() }()
	_, err := client.Do(verify.Get(http.NewRequestWithContext(ctx, "GET", s.url+"/wait", nil)))
	verify.That(errors.Is(err, context.Canceled), "%v", err)
	<-s.canceled
	verify.That(body(client.Get(s.url+"/hello")) == "hello by "+proto, "the next request")
}

func shutdown(s *site, client *http.Client, proto string) {
	answer := make(chan string)
	go func() { answer <- body(client.Get(s.url + "/slow")) }()
	<-s.begun
	verify.Must(s.server.Shutdown(context.Background()))
	verify.That(<-answer == "slow, but sure", "cut by the shutdown")
	_, err := client.Get(s.url + "/hello")
	verify.That(err != nil, "served after the shutdown")
}

// pipelined sends requests without waiting, the last in two pieces, and has the server send 100 Continue.
func pipelined(s *site, _ *http.Client, _ string) {
	conn := verify.Get(wasip1.Dial("tcp", s.listener.Addr().String()))
	defer conn.Close()
	request := "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
	io.WriteString(conn, request+request+"POST /count HTTP/1.1\r\nHost: x\r\nContent-Le")
	io.WriteString(conn, "ngth: 5\r\nExpect: 100-continue\r\n\r\n")
	answers := bufio.NewReader(conn)
	for range 2 {
		verify.That(body(http.ReadResponse(answers, nil)) == "hello by HTTP/1.1", "an answer to another")
	}
	verify.That(verify.Get(http.ReadResponse(answers, nil)).StatusCode == http.StatusContinue, "no leave to go on")
	io.WriteString(conn, "hello"+"GET /hello HTTP/1.0\r\n\r\n")
	verify.That(body(http.ReadResponse(answers, nil)) == "5 bytes", "body")
	verify.That(body(http.ReadResponse(answers, nil)) == "hello by HTTP/1.0", "last")
	_, err := answers.ReadByte()
	verify.That(err == io.EOF, "not closed after HTTP/1.0: %v", err)
}

func upgraded(s *site, _ *http.Client, _ string) {
	conn := verify.Get(wasip1.Dial("tcp", s.listener.Addr().String()))
	defer conn.Close()
	io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
	answers := bufio.NewReader(conn)
	verify.That(verify.Get(http.ReadResponse(answers, nil)).StatusCode == http.StatusSwitchingProtocols, "no upgrade")
	for _, line := range []string{"first\n", "second\n"} {
		io.WriteString(conn, line)
		verify.That(verify.Get(answers.ReadString('\n')) == strings.ToUpper(line), "line %q", line)
	}
}

func main() {
	type check func(s *site, client *http.Client, proto string)
	failed := 0
	each := func(proto string, client func() *http.Client, names []string, checks ...check) {
		for i, check := range checks {
			if !verify.Run(proto+" "+names[i], func() {
				s, client := serve(), client()
				defer s.server.Close()
				defer client.CloseIdleConnections()
				check(s, client, proto)
			}) {
				failed++
			}
		}
	}
	names := []string{"simple", "concurrent", "large bodies", "both ways", "streamed", "canceled"}
	checks := []check{simple, concurrent, largeBody, bothWays, streamed, canceled}
	each("HTTP/1.1", http1, append(names, "shutdown", "pipelined", "upgraded"), append(checks, shutdown, pipelined, upgraded)...)
	each("HTTP/2.0", http2Client, names, checks...)
	fmt.Println("failed:", failed)
	if failed > 0 {
		os.Exit(1)
	}
}
