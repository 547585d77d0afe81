// Command httphello says hello over HTTP: httphello ADDRESS.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"benchguests/wire"
)

func main() {
	l, err := wire.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("listening", l.Addr())
	fmt.Println(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello, world\n")
	})))
}
