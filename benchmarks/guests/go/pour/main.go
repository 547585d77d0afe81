// Command pour writes to its standard error, of which each write is a host call that is recorded with its data:
// pour text|random BYTES CHUNK [PAUSE]. Text is made like the log of a web server. Prints the mean time of a write in
// nanoseconds, pauses left out.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"
)

const bufferBytes = 4 << 20

func main() {
	if len(os.Args) < 4 {
		fmt.Println("usage: pour text|random BYTES CHUNK [PAUSE]")
		os.Exit(2)
	}
	total, chunk := number(os.Args[2]), number(os.Args[3])
	var pause time.Duration
	if len(os.Args) > 4 {
		var err error
		pause, err = time.ParseDuration(os.Args[4])
		check(err)
	}
	random := rand.New(rand.NewSource(1))
	buffer := make([]byte, bufferBytes, bufferBytes+256)
	if os.Args[1] == "text" {
		buffer = lines(random, buffer[:0])
	} else {
		random.Read(buffer)
	}
	calls, spent := 0, time.Duration(0)
	for written := 0; written < total; written += chunk {
		// Anywhere, so that no two blocks are alike.
		at := random.Intn(len(buffer) - chunk)
		start := time.Now()
		_, err := os.Stderr.Write(buffer[at : at+chunk])
		spent += time.Since(start)
		check(err)
		calls++
		if pause > 0 {
			time.Sleep(pause)
		}
	}
	fmt.Printf("pour %.2f ns\n", float64(spent.Nanoseconds())/float64(calls))
}

func lines(random *rand.Rand, buffer []byte) []byte {
	paths := []string{"/", "/api/v1/orders", "/api/v1/users", "/static/app.js", "/healthz"}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for len(buffer) < bufferBytes {
		now = now.Add(time.Duration(random.Intn(5_000_000)))
		buffer = fmt.Appendf(buffer, "%s INFO request method=GET path=%s/%d status=%d bytes=%d duration=%.3fms trace=%016x\n",
			now.Format(time.RFC3339Nano), paths[random.Intn(len(paths))], random.Intn(100_000),
			[]int{200, 200, 200, 304, 404, 500}[random.Intn(6)], random.Intn(20_000), random.Float64()*80, random.Uint64())
	}
	return buffer
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
