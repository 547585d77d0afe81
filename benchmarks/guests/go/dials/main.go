// Command dials makes connections and closes them: dials ADDRESS COUNT CONCURRENT. Prints how many a second.
package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"benchguests/wire"
)

func main() {
	count, _ := strconv.Atoi(os.Args[2])
	concurrent, _ := strconv.Atoi(os.Args[3])
	var begun atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range concurrent {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for begun.Add(1) <= int64(count) {
				c, err := wire.Dial("tcp", os.Args[1])
				if err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				c.Close()
			}
		}()
	}
	wg.Wait()
	fmt.Printf("dials %.1f /s\n", float64(count)/time.Since(start).Seconds())
}
