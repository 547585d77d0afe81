// Command hello is the smallest useful Go program: what it takes to start and end.
package main

import "os"

func main() { os.Stdout.WriteString("hello, world\n") }
