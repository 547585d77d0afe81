//go:build wasip1

// Package wasi declares all 46 functions of wasi_snapshot_preview1 with their raw signatures, for guests that
// must make calls the Go runtime never makes. A module imports only those that its program reaches.
package wasi

import (
	"strconv"
	"unsafe"
)

type (
	FD    = uint32
	Ptr   = unsafe.Pointer
	Errno uint32
)

//go:wasmimport wasi_snapshot_preview1 args_get
func ArgsGet(argv, buf Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 args_sizes_get
func ArgsSizesGet(argc, size Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 environ_get
func EnvironGet(env, buf Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 environ_sizes_get
func EnvironSizesGet(count, size Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 clock_res_get
func ClockResGet(id uint32, res Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 clock_time_get
func ClockTimeGet(id uint32, precision uint64, time Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_advise
func FdAdvise(fd FD, offset, length uint64, advice uint32) Errno

//go:wasmimport wasi_snapshot_preview1 fd_allocate
func FdAllocate(fd FD, offset, length uint64) Errno

//go:wasmimport wasi_snapshot_preview1 fd_close
func FdClose(fd FD) Errno

//go:wasmimport wasi_snapshot_preview1 fd_datasync
func FdDatasync(fd FD) Errno

//go:wasmimport wasi_snapshot_preview1 fd_fdstat_get
func FdFdstatGet(fd FD, stat Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_fdstat_set_flags
func FdFdstatSetFlags(fd FD, flags uint32) Errno

//go:wasmimport wasi_snapshot_preview1 fd_fdstat_set_rights
func FdFdstatSetRights(fd FD, base, inheriting uint64) Errno

//go:wasmimport wasi_snapshot_preview1 fd_filestat_get
func FdFilestatGet(fd FD, stat Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_filestat_set_size
func FdFilestatSetSize(fd FD, size uint64) Errno

//go:wasmimport wasi_snapshot_preview1 fd_filestat_set_times
func FdFilestatSetTimes(fd FD, atim, mtim uint64, flags uint32) Errno

//go:wasmimport wasi_snapshot_preview1 fd_pread
func FdPread(fd FD, iovs Ptr, n uint32, offset uint64, nread Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_prestat_get
func FdPrestatGet(fd FD, stat Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_prestat_dir_name
func FdPrestatDirName(fd FD, path Ptr, n uint32) Errno

//go:wasmimport wasi_snapshot_preview1 fd_pwrite
func FdPwrite(fd FD, iovs Ptr, n uint32, offset uint64, nwritten Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_read
func FdRead(fd FD, iovs Ptr, n uint32, nread Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_readdir
func FdReaddir(fd FD, buf Ptr, n uint32, cookie uint64, used Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_renumber
func FdRenumber(from, to FD) Errno

//go:wasmimport wasi_snapshot_preview1 fd_seek
func FdSeek(fd FD, offset int64, whence uint32, pos Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_sync
func FdSync(fd FD) Errno

//go:wasmimport wasi_snapshot_preview1 fd_tell
func FdTell(fd FD, pos Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 fd_write
func FdWrite(fd FD, iovs Ptr, n uint32, nwritten Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 path_create_directory
func PathCreateDirectory(fd FD, path Ptr, n uint32) Errno

//go:wasmimport wasi_snapshot_preview1 path_filestat_get
func PathFilestatGet(fd FD, lookup uint32, path Ptr, n uint32, stat Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 path_filestat_set_times
func PathFilestatSetTimes(fd FD, lookup uint32, path Ptr, n uint32, atim, mtim uint64, flags uint32) Errno

//go:wasmimport wasi_snapshot_preview1 path_link
func PathLink(oldFD FD, lookup uint32, old Ptr, oldN uint32, newFD FD, new Ptr, newN uint32) Errno

//go:wasmimport wasi_snapshot_preview1 path_open
func PathOpen(fd FD, lookup uint32, path Ptr, n, oflags uint32, base, inheriting uint64, fdflags uint32, opened Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 path_readlink
func PathReadlink(fd FD, path Ptr, n uint32, buf Ptr, bufN uint32, used Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 path_remove_directory
func PathRemoveDirectory(fd FD, path Ptr, n uint32) Errno

//go:wasmimport wasi_snapshot_preview1 path_rename
func PathRename(oldFD FD, old Ptr, oldN uint32, newFD FD, new Ptr, newN uint32) Errno

//go:wasmimport wasi_snapshot_preview1 path_symlink
func PathSymlink(old Ptr, oldN uint32, fd FD, new Ptr, newN uint32) Errno

//go:wasmimport wasi_snapshot_preview1 path_unlink_file
func PathUnlinkFile(fd FD, path Ptr, n uint32) Errno

//go:wasmimport wasi_snapshot_preview1 poll_oneoff
func PollOneoff(in, out Ptr, n uint32, nevents Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 proc_exit
func ProcExit(code uint32)

//go:wasmimport wasi_snapshot_preview1 proc_raise
func ProcRaise(signal uint32) Errno

//go:wasmimport wasi_snapshot_preview1 sched_yield
func SchedYield() Errno

//go:wasmimport wasi_snapshot_preview1 random_get
func RandomGet(buf Ptr, n uint32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_accept
func SockAccept(fd FD, flags uint32, opened Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 sock_recv
func SockRecv(fd FD, iovs Ptr, n, flags uint32, nread, oflags Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 sock_send
func SockSend(fd FD, iovs Ptr, n, flags uint32, nwritten Ptr) Errno

//go:wasmimport wasi_snapshot_preview1 sock_shutdown
func SockShutdown(fd FD, how uint32) Errno

const (
	Success Errno = 0
	Badf    Errno = 8
	Fault   Errno = 21
	Inval   Errno = 28

	FollowSymlinks = 1

	OpenCreat     = 1
	OpenDirectory = 2
	OpenExcl      = 4
	OpenTrunc     = 8

	FdAppend   = 1
	FdNonblock = 4

	RightRead      uint64 = 1 << 1
	RightSeek      uint64 = 1 << 2
	RightTell      uint64 = 1 << 5
	RightWrite     uint64 = 1 << 6
	RightAllocate  uint64 = 1 << 8
	RightReaddir   uint64 = 1 << 14
	RightFilestat  uint64 = 1 << 21
	RightSetSize   uint64 = 1 << 22
	RightSetTimes  uint64 = 1 << 23
	RightPoll      uint64 = 1 << 27
	RightsAll      uint64 = 1<<30 - 1
	RightsFile     uint64 = RightRead | RightSeek | RightTell | RightWrite | RightAllocate | RightFilestat | RightSetSize | RightSetTimes | RightPoll | 1 | 1<<3 | 1<<4 | 1<<7
	RightsReadOnly uint64 = RightRead | RightSeek | RightTell | RightFilestat
)

var names = [...]string{
	"success", "2big", "acces", "addrinuse", "addrnotavail", "afnosupport", "again", "already", "badf", "badmsg", "busy",
	"canceled", "child", "connaborted", "connrefused", "connreset", "deadlk", "destaddrreq", "dom", "dquot", "exist",
	"fault", "fbig", "hostunreach", "idrm", "ilseq", "inprogress", "intr", "inval", "io", "isconn", "isdir", "loop",
	"mfile", "mlink", "msgsize", "multihop", "nametoolong", "netdown", "netreset", "netunreach", "nfile", "nobufs",
	"nodev", "noent", "noexec", "nolck", "nolink", "nomem", "nomsg", "noprotoopt", "nospc", "nosys", "notconn",
	"notdir", "notempty", "notrecoverable", "notsock", "notsup", "notty", "nxio", "overflow", "ownerdead", "perm",
	"pipe", "proto", "protonosupport", "prototype", "range", "rofs", "spipe", "srch", "stale", "timedout", "txtbsy",
	"xdev", "notcapable",
}

func (e Errno) String() string {
	if int(e) < len(names) {
		return names[e]
	}
	return "errno " + strconv.Itoa(int(e))
}

// Iovec is the memory layout of an iovec or ciovec.
type Iovec struct{ Ptr, Len uint32 }

// Addr is p's address in the guest's linear memory.
func Addr(p Ptr) uint32 { return uint32(uintptr(p)) }

// Bytes returns the pointer and length of b; an empty b has a valid, non-nil pointer.
func Bytes(b []byte) (Ptr, uint32) {
	if len(b) == 0 {
		return Ptr(&empty), 0
	}
	return Ptr(&b[0]), uint32(len(b))
}

var empty byte

// Str is Bytes of a copy of s.
func Str(s string) (Ptr, uint32) { return Bytes([]byte(s)) }

// IovecOf describes b. The caller keeps b alive.
func IovecOf(b []byte) Iovec {
	p, n := Bytes(b)
	return Iovec{Addr(p), n}
}

// Open is path_open with symlinks followed and all rights inherited.
func Open(dir FD, path string, oflags uint32, rights uint64, fdflags uint32) (FD, Errno) {
	return OpenLookup(dir, FollowSymlinks, path, oflags, rights, fdflags)
}

// OpenLookup is path_open.
func OpenLookup(dir FD, lookup uint32, path string, oflags uint32, rights uint64, fdflags uint32) (FD, Errno) {
	p, n := Str(path)
	var fd FD
	errno := PathOpen(dir, lookup, p, n, oflags, rights, rights, fdflags, Ptr(&fd))
	return fd, errno
}

// Preopen finds the descriptor of the mount with this guest path.
func Preopen(path string) (FD, bool) {
	for fd := FD(3); ; fd++ {
		var stat [2]uint32
		if FdPrestatGet(fd, Ptr(&stat)) != Success {
			return 0, false
		}
		name := make([]byte, stat[1])
		p, n := Bytes(name)
		if FdPrestatDirName(fd, p, n) == Success && string(name) == path {
			return fd, true
		}
	}
}

// ReadAll reads up to 4 KiB from fd with one fd_read.
func ReadAll(fd FD) (string, Errno) {
	b := make([]byte, 4096)
	v := IovecOf(b)
	var n uint32
	errno := FdRead(fd, Ptr(&v), 1, Ptr(&n))
	return string(b[:n]), errno
}

// Write does one fd_write of s.
func Write(fd FD, s string) (uint32, Errno) {
	b := []byte(s)
	v := IovecOf(b)
	var n uint32
	errno := FdWrite(fd, Ptr(&v), 1, Ptr(&n))
	return n, errno
}
