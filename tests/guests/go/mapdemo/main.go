// Command mapdemo is the program of `make demo`: it counts the words of the .txt files in a mounted directory, deals
// a random hand of them, and writes a report beside them. It prints the time of day and random numbers, so that a
// second run never prints the same, and a replay always does.
package main

import (
	"fmt"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
	"unicode"
)

func main() {
	log.SetFlags(0)
	dir := "/data"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	start := time.Now()
	fmt.Printf("It is %s, and this run's lucky number is %d.\n", start.Format("15:04:05.000000"), rand.Intn(1_000_000))

	counts := map[string]int{}
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		log.Fatalf("mapdemo: no .txt files in %s; mount some: --dir HOST_FOLDER:%s", dir, dir)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		words := strings.FieldsFunc(strings.ToLower(string(text)), func(r rune) bool { return !unicode.IsLetter(r) })
		for _, word := range words {
			counts[word]++
		}
		fmt.Printf("Read %s: %d bytes, %d words.\n", filepath.Base(file), len(text), len(words))
	}

	words := make([]string, 0, len(counts))
	for word := range counts { // in Go, the order of a map changes with every run
		words = append(words, word)
	}
	fmt.Printf("First words out of the hash map: %s.\n", strings.Join(words[:min(5, len(words))], ", "))
	rand.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	fmt.Printf("Five words drawn at random:      %s.\n", strings.Join(words[:min(5, len(words))], ", "))

	sort.Slice(words, func(i, j int) bool {
		if counts[words[i]] != counts[words[j]] {
			return counts[words[i]] > counts[words[j]]
		}
		return words[i] < words[j]
	})
	fmt.Println("The most frequent:")
	report := new(strings.Builder)
	fmt.Fprintf(report, "Report of %s\n", start.Format(time.RFC3339Nano))
	for i, word := range words {
		if i < 5 {
			fmt.Printf("  %-8s %3d %s\n", word, counts[word], strings.Repeat("*", counts[word]))
		}
		fmt.Fprintf(report, "%5d %s\n", counts[word], word)
	}
	time.Sleep(300 * time.Millisecond) // a replay does not wait
	if err := os.WriteFile(filepath.Join(dir, "report.out"), []byte(report.String()), 0o644); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Wrote report.out after %v.\n", time.Since(start).Round(time.Microsecond))
}
