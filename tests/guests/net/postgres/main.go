// Command postgres works with the PostgreSQL server at the URL that it is given: types, transactions, prepared
// statements, batches, errors, COPY, LISTEN and NOTIFY, a pool, and connections that are cut.
//
// With -count N it does one thing only: count to N in a table, each number in a transaction of its own, through whatever
// happens to its connection.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stealthrocket/net/wasip1"
	"guests/verify"
)

var background = context.Background()

// fails checks the SQLSTATE of an error.
func fails(err error, code string) *pgconn.PgError {
	var found *pgconn.PgError
	verify.That(errors.As(err, &found) && found.Code == code, "got %v, want %s", err, code)
	return found
}

func configure(config *pgconn.Config) {
	config.DialFunc = wasip1.DialContext
	// Names are resolved by the dial.
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
}

func config(url string) *pgx.ConnConfig {
	c := verify.Get(pgx.ParseConfig(url))
	configure(&c.Config)
	return c
}

func connect(url string) *pgx.Conn { return verify.Get(pgx.ConnectConfig(background, config(url))) }

func exec(c interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}, sql string, args ...any) int64 {
	return verify.Get(c.Exec(background, sql, args...)).RowsAffected()
}

func value[T any](c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string, args ...any) (found T) {
	verify.Must(c.QueryRow(background, sql, args...).Scan(&found))
	return
}

// same sends a value to the server and back.
func same[T any](c *pgx.Conn, kind string, sent T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
		found := value[T](c, "select $1::"+kind, mode, sent)
		verify.That(reflect.DeepEqual(found, sent), "%s: sent %v, got %v", kind, sent, found)
	}
}

func types(c *pgx.Conn, _ string) {
	same(c, "int2", int16(-32768))
	same(c, "int4", int32(2147483647))
	same(c, "int8", int64(-9223372036854775808))
	same(c, "float4", float32(0.1))
	same(c, "float8", 2.2250738585072014e-308)
	same(c, "bool", true)
	same(c, "text", "naïve ☃ \U0001F600 'quoted' \\ \n")
	same(c, "bytea", []byte{0, 1, 0x7f, 0x80, 0xff, '\'', '\\'})
	same(c, "int4[]", []int32{1, -2, 3})
	same(c, "text[]", []string{"a", `b"c`, "NULL", ""})
	same(c, "inet", netip.MustParsePrefix("2001:db8::1/64"))
	same(c, "date", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC))
	same(c, "timestamp", time.Date(1999, 12, 31, 23, 59, 59, 999999000, time.UTC))
	same(c, "interval", pgtype.Interval{Months: 14, Days: -3, Microseconds: 1_000_001, Valid: true})
	same(c, "uuid", pgtype.UUID{Bytes: [16]byte{1, 2, 3, 15: 16}, Valid: true})
	same(c, "int4", (*int32)(nil))
	verify.That(value[string](c, "select ($1::int4range * '[5,20)')::text", pgtype.Range[int32]{
		Lower: 1, Upper: 10, LowerType: pgtype.Inclusive, UpperType: pgtype.Inclusive, Valid: true,
	}) == "[5,11)", "range")
	verify.That(value[string](c, "select ($1::numeric * 3)::text", "0.1") == "0.3", "numeric")
	found := value[map[string]any](c, "select $1::jsonb", map[string]any{"a": []int{1, 2}, "b": nil})
	verify.That(reflect.DeepEqual(found, map[string]any{"a": []any{1.0, 2.0}, "b": nil}), "jsonb: %v", found)
	at := value[time.Time](c, "select '2024-06-01 12:00+02'::timestamptz")
	verify.That(at.Equal(time.Date(2024, 6, 1, 10, 0, 0, 0, time.UTC)), "timestamptz: %v", at)
}

func transactions(c *pgx.Conn, url string) {
	exec(c, "create table account (name text primary key, amount int not null check (amount >= 0))")
	verify.Must(pgx.BeginFunc(background, c, func(tx pgx.Tx) error {
		exec(tx, "insert into account values ('a', 100), ('b', 0)")
		return nil
	}))
	refused := errors.New("refused")
	err := pgx.BeginFunc(background, c, func(tx pgx.Tx) error {
		exec(tx, "update account set amount = 1")
		return refused
	})
	verify.That(errors.Is(err, refused), "%v", err)
	verify.Must(pgx.BeginFunc(background, c, func(tx pgx.Tx) error {
		exec(tx, "update account set amount = amount + 50 where name = 'b'")
		err := pgx.BeginFunc(background, tx, func(tx pgx.Tx) error { // a savepoint
			_, err := tx.Exec(background, "update account set amount = amount - 200 where name = 'a'")
			return err
		})
		fails(err, "23514")
		exec(tx, "update account set amount = amount - 50 where name = 'a'")
		return nil
	}))
	verify.That(value[string](c, "select string_agg(name || amount, ' ' order by name) from account") == "a50 b50", "amounts")

	other := connect(url)
	defer other.Close(background)
	one := verify.Get(c.BeginTx(background, pgx.TxOptions{IsoLevel: pgx.Serializable}))
	two := verify.Get(other.BeginTx(background, pgx.TxOptions{IsoLevel: pgx.Serializable}))
	for _, tx := range []pgx.Tx{one, two} {
		value[int](tx, "select sum(amount)::int from account")
	}
	exec(one, "update account set amount = 0 where name = 'a'")
	exec(two, "update account set amount = 0 where name = 'b'")
	verify.Must(one.Commit(background))
	fails(two.Commit(background), "40001")
}

func prepared(c *pgx.Conn, _ string) {
	exec(c, "create table square (n int primary key, square int)")
	verify.Get(c.Prepare(background, "insert", "insert into square values ($1, $2)"))
	for n := range 100 {
		verify.That(exec(c, "insert", n, n*n) == 1, "not inserted")
	}
	batch := &pgx.Batch{}
	for n := range 100 {
		batch.Queue("select square from square where n = $1", n)
	}
	results := c.SendBatch(background, batch)
	for n := range 100 {
		verify.That(value[int](queued{results}, "") == n*n, "square of %d", n)
	}
	verify.Must(results.Close())
	rows := verify.Get(c.Query(background, "select n, square from square where n between $1 and $2 order by n", 10, 12))
	type square struct{ N, Square int }
	found := verify.Get(pgx.CollectRows(rows, pgx.RowToStructByName[square]))
	verify.That(reflect.DeepEqual(found, []square{{10, 100}, {11, 121}, {12, 144}}), "%v", found)
	verify.Must(c.Deallocate(background, "insert"))
}

// queued gives the next result of a batch as a query would.
type queued struct{ pgx.BatchResults }

func (q queued) QueryRow(context.Context, string, ...any) pgx.Row { return q.BatchResults.QueryRow() }

func failures(c *pgx.Conn, url string) {
	_, err := c.Exec(background, "select 1 from nowhere")
	verify.That(fails(err, "42P01").Position == 15, "position")
	_, err = c.Exec(background, "insert into square values (1, 1)")
	verify.That(fails(err, "23505").ConstraintName == "square_pkey", "constraint")
	_, err = c.Exec(background, "select 1/0")
	fails(err, "22012")
	exec(c, "set statement_timeout = 20")
	_, err = c.Exec(background, "select pg_sleep(10)")
	fails(err, "57014")
	exec(c, "reset statement_timeout")
	verify.That(value[int](c, "select 1") == 1, "the connection is of no use after errors")

	wrong := config(url)
	wrong.Password = "wrong"
	_, err = pgx.ConnectConfig(background, wrong)
	fails(err, "28P01")
	wrong = config(url)
	wrong.Database = "nowhere"
	_, err = pgx.ConnectConfig(background, wrong)
	fails(err, "3D000")

	other := connect(url)
	ctx, cancel := context.WithTimeout(background, 250*time.Millisecond)
	defer cancel()
	_, err = other.Exec(ctx, "select pg_sleep(10)")
	verify.That(errors.Is(err, context.DeadlineExceeded), "%v", err)
	verify.That(other.IsClosed(), "still open after a query was given up")
}

func copies(c *pgx.Conn, _ string) {
	const count = 20_000
	exec(c, "create table copied (n int, name text, at timestamptz)")
	begin := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	source := pgx.CopyFromSlice(count, func(n int) ([]any, error) {
		return []any{n, fmt.Sprintf("name %d", n), begin.Add(time.Duration(n) * time.Second)}, nil
	})
	verify.That(verify.Get(c.CopyFrom(background, pgx.Identifier{"copied"}, []string{"n", "name", "at"}, source)) == count, "not all")
	verify.That(value[int](c, "select count(distinct (n, name, at))::int from copied") == count, "not all differ")
	var out bytes.Buffer
	verify.Get(c.PgConn().CopyTo(background, &out, "copy (select n, name from copied order by n) to stdout with csv"))
	verify.That(bytes.HasPrefix(out.Bytes(), []byte("0,name 0\n1,name 1\n")), "%.30q", out.Bytes())
	verify.That(bytes.Count(out.Bytes(), []byte("\n")) == count, "%d lines", bytes.Count(out.Bytes(), []byte("\n")))
	_, err := c.PgConn().CopyFrom(background, bytes.NewReader([]byte("not a number\n")), "copy copied (n) from stdin")
	fails(err, "22P02")
}

func large(c *pgx.Conn, _ string) {
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	verify.That(bytes.Equal(value[[]byte](c, "select $1::bytea || ''", sent), sent), "bytes differ")
	rows := verify.Get(c.Query(background, "select n, md5(n::text) from generate_series(1, 50000) n"))
	var n, sum int
	var text string
	verify.Get(pgx.ForEachRow(rows, []any{&n, &text}, func() error { sum += n; return nil }))
	verify.That(sum == 50_000*50_001/2, "sum %d", sum)
}

func notifications(c *pgx.Conn, url string) {
	exec(c, "listen news")
	go func() {
		other := connect(url)
		defer other.Close(background)
		for _, text := range []string{"one", "two", "three"} {
			exec(other, "select pg_notify('news', $1)", text)
		}
	}()
	for _, text := range []string{"one", "two", "three"} {
		news := verify.Get(c.WaitForNotification(background))
		verify.That(news.Channel == "news" && news.Payload == text, "%v", news)
	}
	exec(c, "unlisten news")
}

func pool(_ *pgx.Conn, url string) {
	settings := verify.Get(pgxpool.ParseConfig(url))
	configure(&settings.ConnConfig.Config)
	settings.MaxConns = 8
	pool := verify.Get(pgxpool.NewWithConfig(background, settings))
	defer pool.Close()
	exec(pool, "create table hits (n int)")
	exec(pool, "insert into hits values (0)")
	var wg sync.WaitGroup
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 10 {
				exec(pool, "update hits set n = n + 1")
			}
		}()
	}
	wg.Wait()
	verify.That(value[int](pool, "select n from hits") == 160, "lost hits")
	verify.That(pool.Stat().TotalConns() <= 8, "%d connections", pool.Stat().TotalConns())
}

func cut(c *pgx.Conn, url string) {
	other := connect(url)
	exec(c, "select pg_terminate_backend($1)", other.PgConn().PID())
	_, err := other.Exec(background, "select 1")
	fails(err, "57P01")
	verify.That(other.IsClosed(), "still open")
}

// countTo counts in a table. Each line says how far the count is and how many connections it took.
func countTo(url string, last int) {
	c, connections := connect(url), 1
	exec(c, "create table if not exists counted (n int primary key)")
	for n := 1; n <= last; {
		_, err := c.Exec(background, "insert into counted values ($1) on conflict do nothing", n)
		if err != nil {
			fmt.Fprintf(os.Stderr, "at %d: %v\n", n, err)
			c.Close(background)
			c = connect(url)
			connections++
			continue
		}
		fmt.Println("counted", n)
		n++
	}
	fmt.Println("connections:", connections, "rows:", value[int](c, "select count(*)::int from counted"))
}

func main() {
	last := flag.Int("count", 0, "count to this and do nothing else")
	flag.Parse()
	url := flag.Arg(0)
	if *last > 0 {
		countTo(url, *last)
		return
	}
	c := connect(url)
	fmt.Println(value[string](c, "select version()"))
	failed := 0
	for _, check := range []struct {
		name string
		run  func(c *pgx.Conn, url string)
	}{
		{"types", types}, {"transactions", transactions}, {"prepared statements and batches", prepared},
		{"errors", failures}, {"COPY", copies}, {"large values and results", large},
		{"LISTEN and NOTIFY", notifications}, {"pool", pool}, {"cut connection", cut},
	} {
		if !verify.Run(check.name, func() { check.run(c, url) }) {
			failed++
		}
	}
	verify.Must(c.Close(background))
	fmt.Println("failed:", failed)
	if failed > 0 {
		os.Exit(1)
	}
}
