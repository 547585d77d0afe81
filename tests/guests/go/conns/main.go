// Command conns checks what programs rely on in sockets beyond nettest's suite (real/, wasip1-net): half-close, refusals,
// backlogs, deadlines, addresses, datagrams and large transfers, all on its own loopback.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stealthrocket/net/wasip1"
)

const short = 20 * time.Millisecond

var streams = [][2]string{{"tcp", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"unix", "/run/conns.sock"}}

// must ends a check with its error.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func that(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Errorf(format, args...))
	}
}

func is(err, want error) { that(errors.Is(err, want), "got %v, want %v", err, want) }

// isClosed is for what Go for wasip1 says of descriptors that it closed itself: neither net.ErrClosed nor os.ErrClosed.
func isClosed(err error) {
	that(err != nil && strings.HasSuffix(err.Error(), "use of closed file"), "got %v", err)
}

func get[T any](value T, err error) T {
	must(err)
	return value
}

func listen(network, address string) net.Listener { return get(wasip1.Listen(network, address)) }

func dial(l net.Listener) net.Conn { return get(wasip1.Dial(l.Addr().Network(), l.Addr().String())) }

// pair returns both ends of a connection.
func pair(network, address string) (client, server net.Conn) {
	l := listen(network, address)
	defer l.Close()
	client = dial(l)
	return client, get(l.Accept())
}

func closeWrite(c net.Conn) { must(c.(interface{ CloseWrite() error }).CloseWrite()) }

func readAll(c net.Conn) string { return string(get(io.ReadAll(c))) }

// pattern is n bytes that differ by seed.
func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed)
	}
	return b
}

func halfClose(network, address string) {
	client, server := pair(network, address)
	defer client.Close()
	defer server.Close()
	get(io.WriteString(client, "request"))
	closeWrite(client)
	that(readAll(server) == "request", "request is cut")
	_, err := io.WriteString(client, "more")
	is(err, syscall.EPIPE)
	get(io.WriteString(server, "an answer after the end of the request"))
	closeWrite(server)
	that(readAll(client) == "an answer after the end of the request", "answer is cut")
}

func closedPeer(network, address string) {
	client, server := pair(network, address)
	get(io.WriteString(server, "last words"))
	must(server.Close())
	that(readAll(client) == "last words", "what was sent before the end is lost")
	client.SetWriteDeadline(time.Now().Add(5 * time.Second))
	var err error
	for err == nil {
		_, err = io.WriteString(client, "to nobody")
	}
	that(errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET), "write to a closed peer: %v", err)
	must(client.Close())
	isClosed(client.Close())
	_, err = client.Read(make([]byte, 1))
	isClosed(err)
}

func transfer(network, address string) {
	const size = 8 << 20
	client, server := pair(network, address)
	var wg sync.WaitGroup
	for seed, c := range []net.Conn{client, server} {
		wg.Add(2)
		go func() {
			defer wg.Done()
			that(get(c.Write(pattern(size, seed))) == size, "short write")
			closeWrite(c)
		}()
		go func() {
			defer wg.Done()
			hash := sha256.New()
			that(get(io.Copy(hash, c)) == size, "short read")
			want := sha256.Sum256(pattern(size, 1-seed))
			that(bytes.Equal(hash.Sum(nil), want[:]), "bytes differ")
		}()
	}
	wg.Wait()
	client.Close()
	server.Close()
}

func acceptClosed(network, address string) {
	l := listen(network, address)
	ended := make(chan error)
	for range 2 {
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
	}
	time.Sleep(short)
	must(l.Close())
	isClosed(<-ended)
	isClosed(<-ended)
	_, err := wasip1.Dial(l.Addr().Network(), l.Addr().String())
	that(err != nil, "dialled a closed listener")
}

func waitingWhenClosed(network, address string) {
	l := listen(network, address)
	c := dial(l)
	defer c.Close()
	must(l.Close())
	n, err := c.Read(make([]byte, 1))
	that(n == 0 && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)), "%d %v", n, err)
}

func backlog(network, address string) {
	l := listen(network, address)
	defer l.Close()
	const waiting = 64 // what the package asks for
	for range waiting {
		defer dial(l).Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	_, err := wasip1.DialContext(ctx, l.Addr().Network(), l.Addr().String())
	is(err, context.DeadlineExceeded)
	late := make(chan net.Conn)
	go func() { late <- dial(l) }()
	for range waiting {
		get(l.Accept()).Close()
	}
	server := get(l.Accept())
	client := <-late
	get(io.WriteString(client, "late"))
	client.Close()
	that(readAll(server) == "late", "who gave up is still in the queue")
	server.Close()
}

func addresses(network, address string) {
	l := listen(network, address)
	defer l.Close()
	client := dial(l)
	server := get(l.Accept())
	defer client.Close()
	defer server.Close()
	same := func(a, b net.Addr) { that(a.String() == b.String(), "%s and %s", a, b) }
	same(client.RemoteAddr(), l.Addr())
	same(server.LocalAddr(), l.Addr())
	same(client.LocalAddr(), server.RemoteAddr())
	that(client.LocalAddr().Network() == l.Addr().Network(), "network %s", client.LocalAddr().Network())
	_, err := wasip1.Listen(l.Addr().Network(), l.Addr().String())
	is(err, syscall.EADDRINUSE)
	must(l.Close())
	listen(l.Addr().Network(), l.Addr().String()).Close()
}

func deadlines(network, address string) {
	client, server := pair(network, address)
	defer client.Close()
	defer server.Close()
	one := make([]byte, 1)
	client.SetReadDeadline(time.Now().Add(short))
	begin := time.Now()
	_, err := client.Read(one)
	is(err, os.ErrDeadlineExceeded)
	that(time.Since(begin) >= short, "too early")
	var timeout net.Error
	that(errors.As(err, &timeout) && timeout.Timeout(), "no timeout: %v", err)
	client.SetReadDeadline(time.Time{})
	go func() { time.Sleep(short); server.Write(one) }()
	get(client.Read(one))
	client.SetWriteDeadline(time.Now().Add(10 * short))
	n, err := client.Write(make([]byte, 64<<20)) // more than any buffer holds, and nobody reads
	is(err, os.ErrDeadlineExceeded)
	that(n > 0, "nothing was sent")
	client.SetWriteDeadline(time.Time{})
	go io.Copy(io.Discard, server)
	get(client.Write(one))
}

// manyConns has each of 400 connections speak while all others are open.
func manyConns(network, address string) {
	const count = 400
	l := listen(network, address)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	var opened, done sync.WaitGroup
	opened.Add(count)
	for i := range count {
		done.Add(1)
		go func() {
			defer done.Done()
			c := dial(l)
			defer c.Close()
			opened.Done()
			opened.Wait()
			get(fmt.Fprintf(c, "connection %d", i))
			closeWrite(c)
			that(readAll(c) == fmt.Sprintf("connection %d", i), "somebody else's bytes")
		}()
	}
	done.Wait()
}

func refusals() {
	_, err := wasip1.Dial("tcp", "127.0.0.1:1")
	is(err, syscall.ECONNREFUSED)
	_, err = wasip1.Dial("tcp6", "[::1]:1")
	is(err, syscall.ECONNREFUSED)
	_, err = wasip1.Dial("unix", "/run/nobody.sock")
	is(err, syscall.ENOENT)
	_, err = wasip1.Dial("tcp", "192.0.2.1:80")
	is(err, syscall.EACCES)
	_, err = wasip1.Dial("tcp", "name.invalid:80")
	is(err, syscall.ENOENT)
	l := listen("tcp", "127.0.0.1:0")
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, err = wasip1.Dial("tcp6", "[::1]:"+port)
	is(err, syscall.ECONNREFUSED) // the other family's port
	get(wasip1.Dial("tcp", "localhost:"+port)).Close()
}

// pingPong sends datagrams to and fro between a connected socket and one that is not.
func pingPong(network, address string) {
	p := get(wasip1.ListenPacket(network, address))
	defer p.Close()
	c := get(wasip1.Dial(network, p.LocalAddr().String()))
	defer c.Close()
	b := make([]byte, 65536)
	for i, size := range []int{1, 512, 1472, 9000, 65507} {
		get(c.Write(pattern(size, i)))
		n, from, err := p.ReadFrom(b)
		must(err)
		that(reflect.DeepEqual(from, c.LocalAddr()), "from %s, not %s", from, c.LocalAddr())
		that(bytes.Equal(b[:n], pattern(size, i)), "ping of %d", size)
		get(p.WriteTo(b[:n], from))
		n = get(c.Read(b))
		that(bytes.Equal(b[:n], pattern(size, i)), "pong of %d", size)
	}
	_, err := c.Write(make([]byte, 65508))
	is(err, syscall.EMSGSIZE)
	get(c.Write([]byte("longer than the buffer")))
	n, _, err := p.ReadFrom(b[:6])
	must(err)
	that(string(b[:n]) == "longer", "cut to %q", b[:n])
	p.SetReadDeadline(time.Now().Add(short))
	_, _, err = p.ReadFrom(b)
	is(err, os.ErrDeadlineExceeded)
}

// strangers checks that a connected datagram socket hears its peer alone, and hears of a port that nobody has.
func strangers(network, address string) {
	p := get(wasip1.ListenPacket(network, address))
	c := get(wasip1.Dial(network, p.LocalAddr().String()))
	defer c.Close()
	stranger := get(wasip1.ListenPacket(network, address))
	defer stranger.Close()
	get(stranger.WriteTo([]byte("stranger"), c.LocalAddr()))
	get(p.WriteTo([]byte("peer"), c.LocalAddr()))
	b := make([]byte, 100)
	that(string(b[:get(c.Read(b))]) == "peer", "heard %q", b)
	must(p.Close())
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	get(c.Write([]byte("anybody?")))
	_, err := c.Read(b)
	is(err, syscall.ECONNREFUSED)
}

func readClosed(network, address string) {
	p := get(wasip1.ListenPacket(network, address))
	ended := make(chan error)
	go func() {
		_, _, err := p.ReadFrom(make([]byte, 1))
		ended <- err
	}()
	time.Sleep(short)
	must(p.Close())
	isClosed(<-ended)
}

// run prints how one check ended; a check that panics doesn't keep others from running.
func run(name string, check func()) (ok bool) {
	defer func() {
		if err := recover(); err != nil {
			fmt.Println("FAILED", name+":", err)
			return
		}
		fmt.Println("ok", name)
		ok = true
	}()
	check()
	return
}

func main() {
	failed := 0
	each := func(name string, kinds [][2]string, check func(network, address string)) {
		for _, kind := range kinds {
			if !run(name+" "+kind[0], func() { check(kind[0], kind[1]) }) {
				failed++
			}
		}
	}
	each("half-close", streams, halfClose)
	each("closed peer", streams, closedPeer)
	each("transfer", streams, transfer)
	each("accept and close", streams, acceptClosed)
	each("close with one waiting", streams, waitingWhenClosed)
	each("backlog", streams, backlog)
	each("addresses", streams, addresses)
	each("deadlines", streams, deadlines)
	each("400 connections", streams, manyConns)
	each("refusals", [][2]string{{"tcp", ""}}, func(string, string) { refusals() })
	packets := [][2]string{{"udp", "127.0.0.1:0"}, {"udp6", "[::1]:0"}}
	each("ping-pong", packets, pingPong)
	each("strangers", packets, strangers)
	each("read and close", packets, readClosed)
	fmt.Println("failed:", failed)
	if failed > 0 {
		os.Exit(1)
	}
}
