// Command timers sleeps, ticks and selects in several goroutines. Its output does not depend on timing.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

func main() {
	start := time.Now()
	time.Sleep(20 * time.Millisecond)
	fmt.Println("slept at least 20ms:", time.Since(start) >= 20*time.Millisecond)

	results := make([]int, 5)
	var group sync.WaitGroup
	for i := range results {
		group.Add(1)
		go func() {
			defer group.Done()
			time.Sleep(time.Duration(len(results)-i) * 5 * time.Millisecond)
			results[i] = i * i
		}()
	}
	group.Wait()
	fmt.Println("goroutines:", results)

	ticker := time.NewTicker(3 * time.Millisecond)
	for range 5 {
		<-ticker.C
	}
	ticker.Stop()
	fmt.Println("ticks: 5")

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	select {
	case <-ctx.Done():
		fmt.Println("select:", ctx.Err())
	case <-time.After(time.Minute):
		fmt.Println("select: the wrong timer")
	}

	order := make(chan int, 3)
	for _, ms := range []int{60, 5, 30} {
		time.AfterFunc(time.Duration(ms)*time.Millisecond, func() { order <- ms })
	}
	fmt.Println("order:", <-order, <-order, <-order)
}
