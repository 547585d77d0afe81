//go:build wasip1

// Command rights lowers a descriptor's rights step by step and tries what it may no longer do. A call without its right
// must fail with notcapable, and rights can never be raised. Needs a writable mount at /data.
package main

import (
	"fmt"
	"os"

	. "guests/wasi"
)

var failed int

func expect(name string, errno Errno, allowed bool) {
	fmt.Printf("%s: %s\n", name, errno)
	if (errno == Success) != allowed {
		fmt.Println("  unexpected")
		failed++
	}
}

func main() {
	dir, ok := Preopen("/data")
	if !ok {
		fmt.Println("rights: no mount at /data")
		os.Exit(2)
	}
	file(dir)
	directory(dir)
	p, n := Str("rights.txt")
	expect("clean up", PathUnlinkFile(dir, p, n), true)
	fmt.Printf("failed: %d\n", failed)
	os.Exit(min(failed, 1))
}

func rights(fd FD) (base, inheriting uint64) {
	var stat [3]uint64
	if errno := FdFdstatGet(fd, Ptr(&stat)); errno != Success {
		fmt.Println("fd_fdstat_get:", errno)
	}
	return stat[1], stat[2]
}

func file(dir FD) {
	fd, errno := Open(dir, "rights.txt", OpenCreat|OpenTrunc, RightsFile, 0)
	expect("open", errno, true)
	base, _ := rights(fd)
	fmt.Printf("file rights granted: %t\n", base&RightsFile == RightsFile)
	var pos uint64
	_, errno = Write(fd, "text")
	expect("write with the right", errno, true)

	expect("drop write", FdFdstatSetRights(fd, RightsFile&^RightWrite, 0), true)
	_, errno = Write(fd, "more")
	expect("write without", errno, false)
	expect("seek with the right", FdSeek(fd, 0, 0, Ptr(&pos)), true)
	_, errno = ReadAll(fd)
	expect("read with the right", errno, true)
	expect("raise write again", FdFdstatSetRights(fd, RightsFile, 0), false)
	_, errno = Write(fd, "more")
	expect("write still without", errno, false)

	expect("drop size", FdFdstatSetRights(fd, RightRead|RightSeek|RightFilestat, 0), true)
	expect("set size without", FdFilestatSetSize(fd, 0), false)
	expect("set times without", FdFilestatSetTimes(fd, 0, 0, 1|4), false)
	expect("allocate without", FdAllocate(fd, 0, 100), false)
	expect("stat with the right", FdFilestatGet(fd, Ptr(new([8]uint64))), true)
	expect("drop all", FdFdstatSetRights(fd, 0, 0), true)
	_, errno = ReadAll(fd)
	expect("read without", errno, false)
	expect("seek without", FdSeek(fd, 0, 0, Ptr(&pos)), false)
	expect("tell without", FdTell(fd, Ptr(&pos)), false)
	expect("sync without", FdSync(fd), false)
	expect("datasync without", FdDatasync(fd), false)
	expect("advise without", FdAdvise(fd, 0, 1, 0), false)
	expect("set flags without", FdFdstatSetFlags(fd, FdAppend), false)
	expect("stat without", FdFilestatGet(fd, Ptr(new([8]uint64))), false)
	base, _ = rights(fd)
	fmt.Printf("rights left: %d\n", base)
	expect("close needs no right", FdClose(fd), true)
}

func directory(dir FD) {
	p, n := Str("rights.d")
	expect("mkdir", PathCreateDirectory(dir, p, n), true)
	// A directory that may be listed, and in which files may be opened for reading only.
	var fd FD
	const pathOpen = 1 << 13
	errno := PathOpen(dir, 0, p, n, OpenDirectory, RightReaddir|pathOpen, RightRead, 0, Ptr(&fd))
	expect("open directory", errno, true)
	_, errno = Open(fd, "new", OpenCreat, RightRead, 0)
	expect("create without", errno, false)
	q, m := Str("x")
	expect("mkdir without", PathCreateDirectory(fd, q, m), false)
	expect("symlink without", PathSymlink(q, m, fd, q, m), false)
	expect("unlink without", PathUnlinkFile(fd, q, m), false)
	expect("rmdir without", PathRemoveDirectory(fd, q, m), false)
	expect("stat without", PathFilestatGet(fd, 0, q, m, Ptr(new([8]uint64))), false)
	expect("rename from without", PathRename(fd, q, m, dir, q, m), false)
	f, k := Str("rights.txt")
	expect("rename to without", PathRename(dir, f, k, fd, q, m), false)
	expect("link to without", PathLink(dir, 0, f, k, fd, q, m), false)
	created, errno := Open(dir, "rights.d/inner", OpenCreat, RightsFile, 0)
	expect("create through the parent", errno, true)
	expect("close", FdClose(created), true)
	_, errno = Open(fd, "inner", 0, RightRead|RightWrite, 0)
	expect("open for more than inherited", errno, false)
	inner, errno := Open(fd, "inner", 0, RightRead, 0)
	expect("open for what is inherited", errno, true)
	_, errno = Write(inner, "x")
	expect("write without", errno, false)
	expect("close", FdClose(inner), true)
	buf := make([]byte, 256)
	var used uint32
	expect("list with the right", FdReaddir(fd, Ptr(&buf[0]), 256, 0, Ptr(&used)), true)
	expect("drop listing", FdFdstatSetRights(fd, pathOpen, RightRead), true)
	expect("list without", FdReaddir(fd, Ptr(&buf[0]), 256, 0, Ptr(&used)), false)
	expect("close", FdClose(fd), true)
	i, l := Str("rights.d/inner")
	expect("unlink", PathUnlinkFile(dir, i, l), true)
	expect("rmdir", PathRemoveDirectory(dir, p, n), true)
}
