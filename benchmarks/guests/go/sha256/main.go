// Command sha256 hashes zeros: sha256 [MIB], by default 64. Integers alone, no host calls.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	mib := 64
	if len(os.Args) > 1 {
		mib, _ = strconv.Atoi(os.Args[1])
	}
	block := make([]byte, 1<<20)
	hash := sha256.New()
	start := time.Now()
	for range mib {
		hash.Write(block)
	}
	sum := hash.Sum(nil)
	fmt.Printf("sha256 %.4f s\n", time.Since(start).Seconds())
	fmt.Printf("sha256_digest %x hex\n", sum)
}
