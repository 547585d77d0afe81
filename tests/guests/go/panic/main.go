// Command panic panics three calls deep: exit code 2, a stack of Go functions on stderr, main.third on top.
package main

import "fmt"

func main() {
	fmt.Println("about to panic")
	first(3)
}

//go:noinline
func first(n int) { second(n - 1) }

//go:noinline
func second(n int) { third(n - 1) }

//go:noinline
func third(n int) { panic(fmt.Sprintf("at the bottom: %d", n)) }
