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
	"guests/verify"
)

const short = 20 * time.Millisecond

var streams = [][2]string{{"tcp", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"unix", "/run/conns.sock"}}

func is(err, want error) { verify.That(errors.Is(err, want), "got %v, want %v", err, want) }

// isClosed is for what Go for wasip1 says of descriptors that it closed itself: neither net.ErrClosed nor os.ErrClosed.
func isClosed(err error) {
	verify.That(err != nil && strings.HasSuffix(err.Error(), "use of closed file"), "got %v", err)
}

func listen(network, address string) net.Listener { return verify.Get(wasip1.Listen(network, address)) }

func dial(l net.Listener) net.Conn {
	return verify.Get(wasip1.Dial(l.Addr().Network(), l.Addr().String()))
}

// pair returns both ends of a connection.
func pair(network, address string) (client, server net.Conn) {
	l := listen(network, address)
	defer l.Close()
	client = dial(l)
	return client, verify.Get(l.Accept())
}

func closeWrite(c net.Conn) { verify.Must(c.(interface{ CloseWrite() error }).CloseWrite()) }

func readAll(c net.Conn) string { return string(verify.Get(io.ReadAll(c))) }

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
	verify.Get(io.WriteString(client, "request"))
	closeWrite(client)
	verify.That(readAll(server) == "request", "request is cut")
	_, err := io.WriteString(client, "more")
	is(err, syscall.EPIPE)
	verify.Get(io.WriteString(server, "an answer after the end of the request"))
	closeWrite(server)
	verify.That(readAll(client) == "an answer after the end of the request", "answer is cut")
}

func closedPeer(network, address string) {
	client, server := pair(network, address)
	verify.Get(io.WriteString(server, "last words"))
	verify.Must(server.Close())
	verify.That(readAll(client) == "last words", "what was sent before the end is lost")
	client.SetWriteDeadline(time.Now().Add(5 * time.Second))
	var err error
	for err == nil {
		_, err = io.WriteString(client, "to nobody")
	}
	verify.That(errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET), "write to a closed peer: %v", err)
	verify.Must(client.Close())
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
			verify.That(verify.Get(c.Write(pattern(size, seed))) == size, "short write")
			closeWrite(c)
		}()
		go func() {
			defer wg.Done()
			hash := sha256.New()
			verify.That(verify.Get(io.Copy(hash, c)) == size, "short read")
			want := sha256.Sum256(pattern(size, 1-seed))
			verify.That(bytes.Equal(hash.Sum(nil), want[:]), "bytes differ")
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
	verify.Must(l.Close())
	isClosed(<-ended)
	isClosed(<-ended)
	_, err := wasip1.Dial(l.Addr().Network(), l.Addr().String())
	verify.That(err != nil, "dialled a closed listener")
}

func waitingWhenClosed(network, address string) {
	l := listen(network, address)
	c := dial(l)
	defer c.Close()
	verify.Must(l.Close())
	n, err := c.Read(make([]byte, 1))
	verify.That(n == 0 && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)), "%d %v", n, err)
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
		verify.Get(l.Accept()).Close()
	}
	server := verify.Get(l.Accept())
	client := <-late
	verify.Get(io.WriteString(client, "late"))
	client.Close()
	verify.That(readAll(server) == "late", "who gave up is still in the queue")
	server.Close()
}

func addresses(network, address string) {
	l := listen(network, address)
	defer l.Close()
	client := dial(l)
	server := verify.Get(l.Accept())
	defer client.Close()
	defer server.Close()
	same := func(a, b net.Addr) { verify.That(a.String() == b.String(), "%s and %s", a, b) }
	same(client.RemoteAddr(), l.Addr())
	same(server.LocalAddr(), l.Addr())
	same(client.LocalAddr(), server.RemoteAddr())
	verify.That(client.LocalAddr().Network() == l.Addr().Network(), "network %s", client.LocalAddr().Network())
	_, err := wasip1.Listen(l.Addr().Network(), l.Addr().String())
	is(err, syscall.EADDRINUSE)
	verify.Must(l.Close())
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
	verify.That(time.Since(begin) >= short, "too early")
	var timeout net.Error
	verify.That(errors.As(err, &timeout) && timeout.Timeout(), "no timeout: %v", err)
	client.SetReadDeadline(time.Time{})
	go func() { time.Sleep(short); server.Write(one) }()
	verify.Get(client.Read(one))
	client.SetWriteDeadline(time.Now().Add(10 * short))
	n, err := client.Write(make([]byte, 64<<20)) // more than any buffer holds, and nobody reads
	is(err, os.ErrDeadlineExceeded)
	verify.That(n > 0, "nothing was sent")
	client.SetWriteDeadline(time.Time{})
	go io.Copy(io.Discard, server)
	verify.Get(client.Write(one))
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
			verify.Get(fmt.Fprintf(c, "connection %d", i))
			closeWrite(c)
			verify.That(readAll(c) == fmt.Sprintf("connection %d", i), "somebody else's bytes")
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
	verify.Get(wasip1.Dial("tcp", "localhost:"+port)).Close()
}

// pingPong sends datagrams to and fro between a connected socket and one that is not.
func pingPong(network, address string) {
	p := verify.Get(wasip1.ListenPacket(network, address))
	defer p.Close()
	c := verify.Get(wasip1.Dial(network, p.LocalAddr().String()))
	defer c.Close()
	b := make([]byte, 65536)
	for i, size := range []int{1, 512, 1472, 9000, 65507} {
		verify.Get(c.Write(pattern(size, i)))
		n, from, err := p.ReadFrom(b)
		verify.Must(err)
		verify.That(reflect.DeepEqual(from, c.LocalAddr()), "from %s, not %s", from, c.LocalAddr())
		verify.That(bytes.Equal(b[:n], pattern(size, i)), "ping of %d", size)
		verify.Get(p.WriteTo(b[:n], from))
		n = verify.Get(c.Read(b))
		verify.That(bytes.Equal(b[:n], pattern(size, i)), "pong of %d", size)
	}
	_, err := c.Write(make([]byte, 65508))
	is(err, syscall.EMSGSIZE)
	verify.Get(c.Write([]byte("longer than the buffer")))
	n, _, err := p.ReadFrom(b[:6])
	verify.Must(err)
	verify.That(string(b[:n]) == "longer", "cut to %q", b[:n])
	p.SetReadDeadline(time.Now().Add(short))
	_, _, err = p.ReadFrom(b)
	is(err, os.ErrDeadlineExceeded)
}

// strangers checks that a connected datagram socket hears its peer alone, and hears of a port that nobody has.
func strangers(network, address string) {
	p := verify.Get(wasip1.ListenPacket(network, address))
	c := verify.Get(wasip1.Dial(network, p.LocalAddr().String()))
	defer c.Close()
	stranger := verify.Get(wasip1.ListenPacket(network, address))
	defer stranger.Close()
	verify.Get(stranger.WriteTo([]byte("stranger"), c.LocalAddr()))
	verify.Get(p.WriteTo([]byte("peer"), c.LocalAddr()))
	b := make([]byte, 100)
	verify.That(string(b[:verify.Get(c.Read(b))]) == "peer", "heard %q", b)
	verify.Must(p.Close())
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	verify.Get(c.Write([]byte("anybody?")))
	_, err := c.Read(b)
	is(err, syscall.ECONNREFUSED)
}

func readClosed(network, address string) {
	p := verify.Get(wasip1.ListenPacket(network, address))
	ended := make(chan error)
	go func() {
		_, _, err := p.ReadFrom(make([]byte, 1))
		ended <- err
	}()
	time.Sleep(short)
	verify.Must(p.Close())
	isClosed(<-ended)
}

func main() {
	failed := 0
	each := func(name string, kinds [][2]string, check func(network, address string)) {
		for _, kind := range kinds {
			if !verify.Run(name+" "+kind[0], func() { check(kind[0], kind[1]) }) {
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
