// Command redis works with the Redis server at the address that it is given: values of all kinds, pipelines,
// transactions, scripts, publish and subscribe, blocking calls, errors, large values, many connections.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stealthrocket/net/wasip1"
	"guests/verify"
)

var background = context.Background()

// get is the result of a command.
func get[T any](command interface{ Result() (T, error) }) T {
	value, err := command.Result()
	verify.Must(err)
	return value
}

// same checks the result of a command.
func same[T any](command interface{ Result() (T, error) }, want T) {
	got := get(command)
	verify.That(reflect.DeepEqual(got, want), "got %v, want %v", got, want)
}

func connect(address string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: address, Dialer: wasip1.DialContext, ContextTimeoutEnabled: true})
}

func values(c *redis.Client, _ string) {
	binary := "\x00\r\n\xff not text"
	same(c.Set(background, "text", binary, 0), "OK")
	same(c.Get(background, "text"), binary)
	verify.That(errors.Is(c.Get(background, "missing").Err(), redis.Nil), "something is missing")
	same(c.IncrBy(background, "number", 41), 41)
	same(c.Incr(background, "number"), 42)
	same(c.RPush(background, "list", "a", "b", "c"), 3)
	same(c.LRange(background, "list", 0, -1), []string{"a", "b", "c"})
	same(c.HSet(background, "hash", "one", 1, "two", 2), 2)
	same(c.HGetAll(background, "hash"), map[string]string{"one": "1", "two": "2"})
	same(c.SAdd(background, "set", "x", "y", "x"), 2)
	same(c.ZAdd(background, "sorted", redis.Z{Score: 2.5, Member: "b"}, redis.Z{Score: -1, Member: "a"}), 2)
	same(c.ZRangeWithScores(background, "sorted", 0, -1), []redis.Z{{Score: -1, Member: "a"}, {Score: 2.5, Member: "b"}})
	same(c.MGet(background, "text", "missing", "number"), []any{binary, nil, "42"})
	same(c.Set(background, "brief", "", 20*time.Millisecond), "OK")
	time.Sleep(40 * time.Millisecond)
	same(c.Exists(background, "brief"), 0)
}

func pipelines(c *redis.Client, _ string) {
	const count = 5000
	answers, err := c.Pipelined(background, func(p redis.Pipeliner) error {
		for range count {
			p.Incr(background, "piped")
		}
		return nil
	})
	verify.Must(err)
	for i, answer := range answers {
		verify.That(answer.(*redis.IntCmd).Val() == int64(i+1), "answer %d", i)
	}
	same(c.Get(background, "piped"), fmt.Sprint(count))
}

func transactions(c *redis.Client, _ string) {
	verify.Must(c.Set(background, "watched", 1, 0).Err())
	double := func(interfere bool) error {
		return c.Watch(background, func(tx *redis.Tx) error {
			n, err := tx.Get(background, "watched").Int()
			verify.Must(err)
			if interfere {
				verify.Must(c.Set(background, "watched", 10, 0).Err())
			}
			_, err = tx.TxPipelined(background, func(p redis.Pipeliner) error {
				return p.Set(background, "watched", 2*n, 0).Err()
			})
			return err
		}, "watched")
	}
	verify.That(errors.Is(double(true), redis.TxFailedErr), "not noticed")
	verify.Must(double(false))
	same(c.Get(background, "watched"), "20")
}

func scripts(c *redis.Client, _ string) {
	script := redis.NewScript("return {KEYS[1], ARGV[1] * 2, redis.call('incr', KEYS[1])}")
	for n := range int64(2) { // by text, then by digest
		same(script.Run(background, c, []string{"scripted"}, 21), any([]any{"scripted", int64(42), n + 1}))
	}
}

func subscriptions(c *redis.Client, address string) {
	heard := c.PSubscribe(background, "news.*")
	defer heard.Close()
	_, err := heard.Receive(background) // that it has begun
	verify.Must(err)
	go func() {
		other := connect(address)
		defer other.Close()
		for i := range 100 {
			same(other.Publish(background, "news.today", fmt.Sprint("message ", i)), 1)
		}
	}()
	for i := range 100 {
		message, err := heard.ReceiveMessage(background)
		verify.Must(err)
		verify.That(message.Channel == "news.today" && message.Payload == fmt.Sprint("message ", i), "%v", message)
	}
}

func blocking(c *redis.Client, address string) {
	verify.That(errors.Is(c.Do(background, "blpop", "queue", 0.05).Err(), redis.Nil), "an empty queue gave something")
	go func() {
		other := connect(address)
		defer other.Close()
		time.Sleep(20 * time.Millisecond)
		verify.Must(other.RPush(background, "queue", "item").Err())
	}()
	same(c.BLPop(background, 10*time.Second, "queue"), []string{"queue", "item"})
	ctx, cancel := context.WithTimeout(background, 250*time.Millisecond)
	defer cancel()
	err := c.BLPop(ctx, 0, "queue").Err()
	verify.That(errors.Is(err, os.ErrDeadlineExceeded), "waits beyond its deadline: %v", err)
}

func failures(c *redis.Client, _ string) {
	err := c.LPush(background, "text", "x").Err()
	verify.That(err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"), "%v", err)
	err = c.Do(background, "no-such-command").Err()
	verify.That(err != nil && strings.HasPrefix(err.Error(), "ERR unknown command"), "%v", err)
	same(c.Ping(background), "PONG")
}

func large(c *redis.Client, _ string) {
	sent := strings.Repeat("0123456789abcdef", 256<<10)
	verify.Must(c.Set(background, "large", sent, 0).Err())
	verify.That(get(c.Get(background, "large")) == sent, "bytes differ")
	same(c.GetRange(background, "large", 16, 31), "0123456789abcdef")
}

func scan(c *redis.Client, _ string) {
	_, err := c.Pipelined(background, func(p redis.Pipeliner) error {
		for i := range 3000 {
			p.Set(background, fmt.Sprint("scanned:", i), i, 0)
		}
		return nil
	})
	verify.Must(err)
	found := map[string]bool{}
	keys := c.Scan(background, 0, "scanned:*", 100).Iterator()
	for keys.Next(background) {
		found[keys.Val()] = true
	}
	verify.Must(keys.Err())
	verify.That(len(found) == 3000, "%d keys", len(found))
}

func concurrent(c *redis.Client, _ string) {
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			key := fmt.Sprint("worker:", i)
			for n := range int64(20) {
				same(c.Incr(background, key), n+1)
			}
		}()
	}
	wg.Wait()
}

func cut(c *redis.Client, address string) {
	other := connect(address)
	defer other.Close()
	id := get(other.ClientID(background))
	verify.Must(c.ClientKillByFilter(background, "ID", fmt.Sprint(id)).Err())
	same(other.Ping(background), "PONG") // the pool makes another connection
	verify.That(get(other.ClientID(background)) != id, "the same connection")
}

func main() {
	address := os.Args[1]
	c := connect(address)
	defer c.Close()
	failed := 0
	for _, check := range []struct {
		name string
		run  func(c *redis.Client, address string)
	}{
		{"values", values}, {"pipelines", pipelines}, {"transactions", transactions}, {"scripts", scripts},
		{"publish and subscribe", subscriptions}, {"blocking calls", blocking}, {"errors", failures},
		{"large values", large}, {"scan", scan}, {"concurrent", concurrent}, {"cut connection", cut},
	} {
		if !verify.Run(check.name, func() { check.run(c, address) }) {
			failed++
		}
	}
	fmt.Println("failed:", failed)
	if failed > 0 {
		os.Exit(1)
	}
}
