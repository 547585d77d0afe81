// Command markdown renders Markdown from stdin as HTML, by goldmark.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = goldmark.New(goldmark.WithExtensions(extension.GFM)).Convert(text, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "markdown:", err)
		os.Exit(1)
	}
}
