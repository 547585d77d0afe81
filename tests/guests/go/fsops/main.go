// Command fsops uses every file operation of the standard library in the directory given as its argument (which
// must be empty) and prints the results. Its output is the same on every machine.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

var root = "/data"

func at(name string) string { return filepath.Join(root, name) }

func main() {
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	show("empty", list(root))
	show("write", os.WriteFile(at("a.txt"), []byte("alpha\n"), 0o644))
	show("read", read("a.txt"))
	show("read missing", read("nope"))
	show("stat", stat("a.txt"))
	show("stat missing", stat("nope"))
	show("stat dir", stat("."))

	show("excl", create("a.txt", os.O_CREATE|os.O_EXCL|os.O_WRONLY))
	show("append", appendTo("a.txt", "beta\n"))
	show("read", read("a.txt"))
	show("truncate", os.Truncate(at("a.txt"), 3))
	show("read", read("a.txt"))
	show("grow", os.Truncate(at("a.txt"), 5))
	show("read", fmt.Sprintf("%q", must(os.ReadFile(at("a.txt")))))
	show("seek", seek("a.txt"))

	show("mkdir", os.Mkdir(at("dir"), 0o755))
	show("mkdir again", os.Mkdir(at("dir"), 0o755))
	show("mkdir all", os.MkdirAll(at("dir/x/y"), 0o755))
	show("write deep", os.WriteFile(at("dir/x/y/z"), []byte("deep"), 0o644))
	show("rmdir full", os.Remove(at("dir/x")))
	show("open dir for writing", create("dir", os.O_WRONLY))
	show("file as dir", read("a.txt/b"))

	show("symlink", os.Symlink("a.txt", at("sym")))
	show("readlink", fmt.Sprint(os.Readlink(at("sym"))))
	show("read symlink", read("sym"))
	show("lstat symlink", lstat("sym"))
	show("dangling", os.Symlink("nothing", at("dangling")))
	show("read dangling", read("dangling"))
	show("loop", errors.Join(os.Symlink("loop2", at("loop1")), os.Symlink("loop1", at("loop2"))))
	show("read loop", read("loop1"))
	show("symlink to dir", os.Symlink("dir/x", at("symdir")))
	show("read through", read("symdir/y/z"))

	show("link", os.Link(at("a.txt"), at("hard")))
	show("link exists", os.Link(at("a.txt"), at("hard")))
	show("same file", same("a.txt", "hard"))
	show("rename", os.Rename(at("a.txt"), at("b.txt")))
	show("rename missing", os.Rename(at("a.txt"), at("c.txt")))
	show("rename over", errors.Join(os.WriteFile(at("c.txt"), []byte("gone"), 0o644), os.Rename(at("b.txt"), at("c.txt"))))
	show("rename dir", os.Rename(at("dir"), at("folder")))
	show("rename onto full dir", errors.Join(os.Mkdir(at("other"), 0o755), os.Rename(at("other"), at("folder"))))

	when := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	show("utimes", os.Chtimes(at("c.txt"), when, when))
	info, err := os.Stat(at("c.txt"))
	check(err)
	show("mtime", info.ModTime().UTC().Format(time.RFC3339Nano))

	show("tree", tree())
	show("readdir of 300", many(300))
	show("sync", sync("c.txt"))

	show("unlink", os.Remove(at("hard")))
	show("unlink missing", os.Remove(at("hard")))
	show("unlink dir as file", errname(syscall.Unlink(at("folder"))))
	show("rmdir file", errname(syscall.Rmdir(at("c.txt"))))
	for _, name := range strings.Fields("c.txt sym dangling loop1 loop2 symdir other folder many") {
		show("remove "+name, os.RemoveAll(at(name)))
	}
	show("empty", list(root))
}

func show(what string, result any) {
	switch r := result.(type) {
	case nil:
		result = "ok"
	case error:
		result = errname(r)
	}
	fmt.Printf("%s: %v\n", what, result)
}

// errname keeps an error's cause and drops paths, which depend on the mount.
func errname(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return fmt.Sprint(err)
}

func check(err error) {
	if err != nil {
		fmt.Println("fsops:", err)
		os.Exit(1)
	}
}

func must(b []byte, err error) []byte {
	check(err)
	return b
}

func create(name string, mode int) error {
	f, err := os.OpenFile(at(name), mode, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(at(name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func read(name string) any {
	b, err := os.ReadFile(at(name))
	if err != nil {
		return err
	}
	return fmt.Sprintf("%q", b)
}

func describe(info fs.FileInfo, err error) any {
	if err != nil {
		return err
	}
	if info.IsDir() {
		return "dir"
	}
	return fmt.Sprintf("%s %d", info.Mode().Type(), info.Size())
}

func stat(name string) any  { return describe(os.Stat(at(name))) }
func lstat(name string) any { return describe(os.Lstat(at(name))) }

func same(a, b string) any {
	x, err := os.Stat(at(a))
	check(err)
	y, err := os.Stat(at(b))
	check(err)
	return os.SameFile(x, y)
}

func seek(name string) string {
	f, err := os.OpenFile(at(name), os.O_RDWR, 0)
	check(err)
	defer f.Close()
	end, err := f.Seek(-2, io.SeekEnd)
	check(err)
	_, err = f.WriteString("!?")
	check(err)
	_, err = f.WriteAt([]byte("AL"), 0)
	check(err)
	_, err = f.Seek(0, io.SeekStart)
	check(err)
	b, err := io.ReadAll(f)
	check(err)
	_, negative := f.Seek(-1, io.SeekStart)
	return fmt.Sprintf("%d %q negative: %s", end, b, errname(negative))
}

func sync(name string) error {
	f, err := os.OpenFile(at(name), os.O_RDWR, 0)
	check(err)
	return errors.Join(f.Sync(), f.Close())
}

func list(dir string) any {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func tree() string {
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != root {
			lines = append(lines, strings.TrimPrefix(path, root+"/")+d.Type().String()[:1])
		}
		return err
	})
	check(err)
	sort.Strings(lines)
	return strings.Join(lines, " ")
}

// many makes n files, enough for several fd_readdir buffers, and counts what a listing returns.
func many(n int) string {
	check(os.Mkdir(at("many"), 0o755))
	for i := range n {
		check(os.WriteFile(at(fmt.Sprintf("many/a-rather-long-name-%04d", i)), nil, 0o644))
	}
	f, err := os.Open(at("many"))
	check(err)
	defer f.Close()
	seen := map[string]bool{}
	for {
		names, err := f.Readdirnames(7)
		for _, name := range names {
			seen[name] = true
		}
		if err == io.EOF {
			return fmt.Sprintf("%d distinct", len(seen))
		}
		check(err)
	}
}
