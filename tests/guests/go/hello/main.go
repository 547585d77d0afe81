// Command hello prints its arguments and environment, and exits with the number in -exit.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	code := flag.Int("exit", 0, "exit `code`")
	flag.Parse()
	fmt.Println("hello, world")
	for i, arg := range os.Args[1:] {
		fmt.Printf("arg %d: %s\n", i+1, arg)
	}
	for _, env := range os.Environ() {
		fmt.Printf("env: %s\n", env)
	}
	os.Exit(*code)
}
