//go:build wasip1

// Command calls makes every one of the 46 preview 1 calls with valid arguments and prints each call's errno. It
// needs an empty writable mount at /data. Only sock_* cannot succeed: there is no socket, so they name a file.
package main

import (
	"fmt"
	"os"

	. "guests/wasi"
)

var failed int

// report prints one call and its errno, and what was read if that is the same everywhere.
func report(name string, errno Errno, want Errno, detail ...any) {
	fmt.Printf("%s: %s%s\n", name, errno, fmt.Sprint(detail...))
	if errno != want {
		fmt.Printf("  expected %s\n", want)
		failed++
	}
}

func main() {
	dir, ok := Preopen("/data")
	if !ok {
		fmt.Println("calls: no mount at /data")
		os.Exit(2)
	}
	process()
	clocks()
	file := files(dir)
	paths(dir)
	sockets(file)
	report("fd_close", FdClose(file), Success)
	report("fd_close twice", FdClose(file), Badf)
	p, n := Str("file")
	report("path_unlink_file", PathUnlinkFile(dir, p, n), Success)
	fmt.Printf("failed: %d\n", failed)
	if len(os.Args) > 1 && os.Args[1] == "-raise" {
		// Signal 6 is abort: kill -ABRT of a process by itself. Not returning is fine; so is notsup or nosys.
		report("proc_raise", ProcRaise(6), Success)
	}
	fmt.Println("proc_exit: 3")
	ProcExit(3)
}

func process() {
	var count, size uint32
	report("args_sizes_get", ArgsSizesGet(Ptr(&count), Ptr(&size)), Success, " ", count > 0)
	pointers, buf := make([]uint32, count+1), make([]byte, size+1)
	report("args_get", ArgsGet(Ptr(&pointers[0]), Ptr(&buf[0])), Success, " ends in 0: ", buf[size-1] == 0)
	report("environ_sizes_get", EnvironSizesGet(Ptr(&count), Ptr(&size)), Success)
	pointers, buf = make([]uint32, count+1), make([]byte, size+1)
	report("environ_get", EnvironGet(Ptr(&pointers[0]), Ptr(&buf[0])), Success)
	random := make([]byte, 32)
	report("random_get", RandomGet(Ptr(&random[0]), 32), Success, " ", [32]byte(random) != [32]byte{})
	report("sched_yield", SchedYield(), Success)
}

func clocks() {
	for id, name := range []string{"realtime", "monotonic"} {
		var t uint64
		report("clock_res_get "+name, ClockResGet(uint32(id), Ptr(&t)), Success, " ", t > 0)
		report("clock_time_get "+name, ClockTimeGet(uint32(id), 1, Ptr(&t)), Success, " ", t > 0)
	}
	// userdata, tag 0 = clock; then id, timeout, precision, flags: 1 ms on the monotonic clock, from now.
	subscription := [6]uint64{0xfeed, 0, 1, 1_000_000, 0, 0}
	var event [4]uint64
	var n uint32
	errno := PollOneoff(Ptr(&subscription), Ptr(&event), 1, Ptr(&n))
	report("poll_oneoff", errno, Success, " ", n, " event, userdata kept: ", event[0] == 0xfeed, ", errno and type ", event[1]&0xffffff)
}

func files(dir FD) FD {
	fd, errno := Open(dir, "file", OpenCreat|OpenExcl, RightsFile, 0)
	report("path_open", errno, Success)
	n, errno := Write(fd, "0123456789")
	report("fd_write", errno, Success, " ", n)
	var pos uint64
	report("fd_tell", FdTell(fd, Ptr(&pos)), Success, " ", pos)
	report("fd_seek set", FdSeek(fd, 2, 0, Ptr(&pos)), Success, " ", pos)
	text, errno := ReadAll(fd)
	report("fd_read", errno, Success, " ", text)
	report("fd_seek end", FdSeek(fd, -1, 2, Ptr(&pos)), Success, " ", pos)
	report("fd_seek cur", FdSeek(fd, -2, 1, Ptr(&pos)), Success, " ", pos)

	// Two iovecs, the first empty.
	a, b := []byte{}, []byte("AB")
	out := [2]Iovec{IovecOf(a), IovecOf(b)}
	report("fd_pwrite", FdPwrite(fd, Ptr(&out), 2, 4, Ptr(&n)), Success, " ", n)
	c, d := make([]byte, 3), make([]byte, 4)
	in := [2]Iovec{IovecOf(c), IovecOf(d)}
	report("fd_pread", FdPread(fd, Ptr(&in), 2, 1, Ptr(&n)), Success, " ", n, " ", string(c), "|", string(d))
	report("fd_tell", FdTell(fd, Ptr(&pos)), Success, " ", pos)

	report("fd_advise", FdAdvise(fd, 0, 10, 3), Success)
	report("fd_allocate", FdAllocate(fd, 0, 20), Success)
	var stat [8]uint64 // device, inode, type, links, size, atim, mtim, ctim
	report("fd_filestat_get", FdFilestatGet(fd, Ptr(&stat)), Success, " type ", stat[2]&0xff, ", links ", stat[3], ", size ", stat[4])
	report("fd_filestat_set_size", FdFilestatSetSize(fd, 7), Success)
	report("fd_filestat_set_times", FdFilestatSetTimes(fd, 1_000_000_000, 2_000_000_000, 1|4), Success)
	report("fd_filestat_get", FdFilestatGet(fd, Ptr(&stat)), Success, " size ", stat[4], ", atim ", stat[5], ", mtim ", stat[6])
	report("fd_sync", FdSync(fd), Success)
	report("fd_datasync", FdDatasync(fd), Success)

	var fdstat [3]uint64 // type and flags, rights, inheriting rights
	report("fd_fdstat_get", FdFdstatGet(fd, Ptr(&fdstat)), Success, " type ", fdstat[0]&0xff)
	report("fd_fdstat_set_flags", FdFdstatSetFlags(fd, FdAppend), Success)
	report("fd_fdstat_get", FdFdstatGet(fd, Ptr(&fdstat)), Success, " flags ", fdstat[0]>>16&0xffff)
	report("fd_fdstat_set_flags", FdFdstatSetFlags(fd, 0), Success)
	report("fd_fdstat_set_rights", FdFdstatSetRights(fd, fdstat[1]&RightsFile, 0), Success)

	other, errno := Open(dir, "file", 0, RightRead, 0)
	report("path_open", errno, Success)
	report("fd_renumber", FdRenumber(fd, other), Success)
	report("fd_tell of the old", FdTell(fd, Ptr(&pos)), Badf)
	return other
}

func paths(dir FD) {
	sub, subN := Str("sub")
	report("path_create_directory", PathCreateDirectory(dir, sub, subN), Success)
	report("path_create_directory twice", PathCreateDirectory(dir, sub, subN), 20)
	file, fileN := Str("file")
	link, linkN := Str("sub/link")
	report("path_link", PathLink(dir, 0, file, fileN, dir, link, linkN), Success)
	moved, movedN := Str("sub/moved")
	report("path_rename", PathRename(dir, link, linkN, dir, moved, movedN), Success)
	target, targetN := Str("../file")
	sym, symN := Str("sub/sym")
	report("path_symlink", PathSymlink(target, targetN, dir, sym, symN), Success)
	buf := make([]byte, 4)
	var used uint32
	report("path_readlink", PathReadlink(dir, sym, symN, Ptr(&buf[0]), 4, Ptr(&used)), Success, " ", string(buf), " ", used)
	var stat [8]uint64
	report("path_filestat_get follow", PathFilestatGet(dir, FollowSymlinks, sym, symN, Ptr(&stat)), Success, " type ", stat[2]&0xff, ", links ", stat[3])
	report("path_filestat_get", PathFilestatGet(dir, 0, sym, symN, Ptr(&stat)), Success, " type ", stat[2]&0xff, ", size ", stat[4])
	report("path_filestat_set_times", PathFilestatSetTimes(dir, FollowSymlinks, sym, symN, 0, 5_000_000_000, 4), Success)
	report("path_filestat_get follow", PathFilestatGet(dir, FollowSymlinks, sym, symN, Ptr(&stat)), Success, " mtim ", stat[6])

	d, errno := Open(dir, "sub", OpenDirectory, RightReaddir, 0)
	report("path_open directory", errno, Success)
	entries := make([]byte, 1024)
	errno = FdReaddir(d, Ptr(&entries[0]), uint32(len(entries)), 0, Ptr(&used))
	report("fd_readdir", errno, Success, " ", used, " bytes") // 4 entries: . .. moved sym
	errno = FdReaddir(d, Ptr(&entries[0]), 10, 0, Ptr(&used))
	report("fd_readdir short", errno, Success, " ", used, " bytes")
	report("fd_close", FdClose(d), Success)

	report("path_unlink_file directory", PathUnlinkFile(dir, sub, subN), 31)
	report("path_unlink_file", PathUnlinkFile(dir, moved, movedN), Success)
	report("path_remove_directory full", PathRemoveDirectory(dir, sub, subN), 55)
	report("path_unlink_file symlink", PathUnlinkFile(dir, sym, symN), Success)
	report("path_remove_directory file", PathRemoveDirectory(dir, file, fileN), 54)
	report("path_remove_directory", PathRemoveDirectory(dir, sub, subN), Success)

	var prestat [2]uint32
	report("fd_prestat_get", FdPrestatGet(dir, Ptr(&prestat)), Success, " ", prestat[1])
	name := make([]byte, prestat[1])
	report("fd_prestat_dir_name", FdPrestatDirName(dir, Ptr(&name[0]), prestat[1]), Success, " ", string(name))
}

func sockets(fd FD) {
	const notsock = 57
	var n, opened uint32
	var flags uint32
	v := IovecOf(make([]byte, 8))
	report("sock_accept", SockAccept(fd, 0, Ptr(&opened)), notsock)
	report("sock_recv", SockRecv(fd, Ptr(&v), 1, 0, Ptr(&n), Ptr(&flags)), notsock)
	report("sock_send", SockSend(fd, Ptr(&v), 1, 0, Ptr(&n)), notsock)
	report("sock_shutdown", SockShutdown(fd, 3), notsock)
}
