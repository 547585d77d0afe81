//go:build wasip1

// Command escape tries to leave its two mounts, /rw (writable) and /ro (read-only), by every path call. The case file
// lays out the folders: a secret beside the mounts, symlinks that point out of them, and links within them. Its argument
// is the absolute host path of the scratch folder that holds them all.
//
// Each attempt prints "name: errno". ESCAPED counts attempts that reached what is not granted, ODD malformed or impossible paths
// that were accepted, MISFIRED controls that should have worked. All must be 0.
//
// It is safe to run under a runtime that leaks: whatever could change something aims at the scratch folder alone, and
// paths that lead further are only opened for reading. Keep it so.
package main

import (
	"fmt"
	"os"
	"strings"

	. "guests/wasi"
)

var (
	rw, ro   FD
	scratch  string
	escaped  int
	accepted int
	misfired int
)

// deny is an attempt that must fail.
func deny(name string, errno Errno) {
	note := ""
	if errno == Success {
		escaped++
		note = " ESCAPED"
	}
	fmt.Printf("%s: %s%s\n", shorten(name), errno, note)
}

// refuse is a path that no file system accepts.
func refuse(name string, errno Errno) {
	note := ""
	if errno == Success {
		accepted++
		note = " ODD"
	}
	fmt.Printf("%s: %s%s\n", shorten(name), errno, note)
}

// allow is a control: it must work, or the denials around it prove nothing.
func allow(name string, errno Errno) {
	note := ""
	if errno != Success {
		misfired++
		note = " MISFIRED"
	}
	fmt.Printf("control %s: %s%s\n", shorten(name), errno, note)
}

func shorten(name string) string {
	name = strings.ReplaceAll(name, scratch, "<SCRATCH>")
	name = strings.ReplaceAll(name, "\x00", "<NUL>")
	if len(name) > 80 {
		return fmt.Sprintf("%s...(%d)", name[:40], len(name))
	}
	return name
}

func main() {
	var a, b bool
	rw, a = Preopen("/rw")
	ro, b = Preopen("/ro")
	if !a || !b || len(os.Args) != 2 || !strings.HasPrefix(os.Args[1], "/") {
		fmt.Println("usage: escape SCRATCH, with the mounts /rw and /ro")
		os.Exit(2)
	}
	scratch = strings.TrimRight(os.Args[1], "/")
	controls()
	beyond()
	outside()
	createThroughSymlinks()
	odd()
	readOnly()
	acrossMounts()
	madeHere()
	fmt.Printf("MISFIRED: %d\n", misfired)
	fmt.Printf("ODD: %d\n", accepted)
	fmt.Printf("ESCAPED: %d\n", escaped)
	os.Exit(min(escaped+accepted+misfired, 1))
}

// try opens a path and, if that works, closes it again.
func try(dir FD, path string, oflags uint32, rights uint64, fdflags uint32) Errno {
	fd, errno := Open(dir, path, oflags, rights, fdflags)
	if errno == Success {
		FdClose(fd)
	}
	return errno
}

func controls() {
	allow("read /rw/inside", try(rw, "inside", 0, RightRead, 0))
	allow("write /rw/inside", try(rw, "inside", 0, RightRead|RightWrite, 0))
	allow("read /ro/file", try(ro, "file", 0, RightRead, 0))
	allow("symlink within", try(rw, "link_in", 0, RightRead, 0))
	allow("dot-dot within", try(rw, "dir/../inside", 0, RightRead, 0))
	allow("symlink with dot-dot within", try(rw, "dir/link_up", 0, RightRead, 0))
	allow("create", try(rw, "made", OpenCreat, RightWrite, 0))
	p, n := Str("made")
	allow("unlink", PathUnlinkFile(rw, p, n))
}

// beyond is what lies outside the scratch folder: looked at, never changed.
func beyond() {
	far := []string{
		"../..", "/", "//", "/etc", "/etc/passwd", "//etc/passwd", "/proc/self/root/etc/passwd", "link_root", "link_root/", "link_root/etc/passwd",
		"link_proc", "link_proc/etc/passwd", "link_proc_fd", "link_proc_fd/0", "link_proc_cwd",
		strings.Repeat("../", 64), strings.Repeat("../", 64) + "etc/passwd", "dir/" + strings.Repeat("../", 64) + "etc/passwd",
	}
	for _, path := range far {
		p, n := Str(path)
		deny("open "+path, try(rw, path, 0, RightRead, 0))
		deny("open dir "+path, try(rw, path, OpenDirectory, RightReaddir, 0))
		deny("stat "+path, PathFilestatGet(rw, FollowSymlinks, p, n, Ptr(new([8]uint64))))
	}
}

// outside is the rest of the scratch folder.
func outside() {
	near := []string{
		"..", "../", "../.", "../secret", "../ro/file", "./../secret", "dir/../../secret", "link_in/../../secret", "inside/../../secret",
		"..//secret", "dir/../..", scratch + "/secret", "/" + scratch + "/secret", scratch + "/rw/inside", scratch,
		"link_out", "link_out/", "link_abs", "link_abs/", "link_dir", "link_dir/", "link_dir/.", "link_dir/..", "link_dir/secret", "link_dir//secret",
		"chain", "chain/", "chain/secret", "deep/deep/secret", "link_slash", "link_slash/", "link_slash/secret", "link_ro",
	}
	for _, path := range near {
		p, n := Str(path)
		deny("open "+path, try(rw, path, 0, RightRead, 0))
		deny("open dir "+path, try(rw, path, OpenDirectory, RightReaddir, 0))
		deny("stat "+path, PathFilestatGet(rw, FollowSymlinks, p, n, Ptr(new([8]uint64))))
		deny("utimes "+path, PathFilestatSetTimes(rw, FollowSymlinks, p, n, 1, 1, 1|4))
		deny("truncate "+path, try(rw, path, OpenTrunc, RightWrite, 0))
		t, k := Str("stolen")
		deny("link from "+path, unlessLink(path, PathLink(rw, FollowSymlinks, p, n, rw, t, k)))
	}
	for _, path := range []string{"..", "../secret", "dir/../../secret", scratch + "/secret", "link_dir/secret", "chain/secret", "link_dir/", "link_slash/"} {
		p, n := Str(path)
		t, k := Str("stolen")
		deny("lstat "+path, unlessDirLink(path, PathFilestatGet(rw, 0, p, n, Ptr(new([8]uint64)))))
		deny("readlink "+path, unlessDirLink(path, PathReadlink(rw, p, n, Ptr(new([64]byte)), 64, Ptr(new(uint32)))))
		deny("rmdir "+path, PathRemoveDirectory(rw, p, n))
		deny("unlink "+path, PathUnlinkFile(rw, p, n))
		deny("rename from "+path, PathRename(rw, p, n, rw, t, k))
	}
	for _, path := range []string{"../pwned", "dir/../../pwned", scratch + "/pwned", "link_dir/pwned", "link_dir//pwned", "chain/pwned", "link_slash/pwned"} {
		p, n := Str(path)
		f, m := Str("inside")
		deny("create "+path, try(rw, path, OpenCreat, RightWrite, 0))
		deny("create excl "+path, try(rw, path, OpenCreat|OpenExcl, RightWrite, 0))
		deny("mkdir "+path, PathCreateDirectory(rw, p, n))
		deny("symlink at "+path, PathSymlink(f, m, rw, p, n))
		deny("link to "+path, PathLink(rw, 0, f, m, rw, p, n))
		deny("rename to "+path, PathRename(rw, f, m, rw, p, n))
	}
}

// unlessLink forgives a hard link to the symlink itself, which reaches nothing, and takes it away.
func unlessLink(path string, errno Errno) Errno {
	if errno != Success {
		return errno
	}
	t, k := Str("stolen")
	var stat [8]uint64
	PathFilestatGet(rw, 0, t, k, Ptr(&stat))
	PathUnlinkFile(rw, t, k)
	if stat[2]&0xff == 7 {
		return Inval
	}
	return errno
}

// unlessDirLink forgives looking at a symlink in the mount itself, with or without a slash behind it.
func unlessDirLink(path string, errno Errno) Errno {
	if errno == Success && strings.HasPrefix(path, "link_") && strings.Count(strings.TrimRight(path, "/"), "/") == 0 {
		var stat [8]uint64
		p, n := Str(path)
		if PathFilestatGet(rw, 0, p, n, Ptr(&stat)) == Success && stat[2]&0xff == 7 {
			return Inval
		}
	}
	return errno
}

func createThroughSymlinks() {
	// link_new points to a file outside that does not exist: O_CREAT must not make it (CVE-2024-38358).
	for _, path := range []string{"link_new", "link_new/", "link_out", "chain_new", "link_abs_new"} {
		deny("creat "+path, try(rw, path, OpenCreat, RightWrite, 0))
		deny("creat trunc "+path, try(rw, path, OpenCreat|OpenTrunc, RightWrite, 0))
		deny("creat append "+path, try(rw, path, OpenCreat, RightWrite, FdAppend))
		deny("creat excl "+path, try(rw, path, OpenCreat|OpenExcl, RightWrite, 0))
		_, errno := OpenLookup(rw, 0, path, OpenCreat, RightWrite, 0)
		deny("creat nofollow "+path, errno)
	}
}

func odd() {
	long := strings.Repeat("a", 256)
	path := strings.Repeat("a/", 2100) // longer than PATH_MAX
	for _, name := range []string{
		"", "\x00", "inside\x00", "in\x00side", "../secret\x00", long, path, strings.Repeat("x", 1<<20), "dir/../" + strings.Repeat("../", 2000) + "secret",
		"inside/", "inside//", "inside/.", "inside/./", "link_in/", "link_in/.", "loop", "loop/", "loop/x", " ", "\xff\xfe", "..\\secret", "dir\x00/../../secret",
		"missing", "missing/", "missing/..", "missing/../inside", "dir/missing/../../inside", "inside/../inside",
	} {
		refuse("open "+name, try(rw, name, 0, RightRead, 0))
	}
	for _, name := range []string{"", "\x00", "new\x00", long, path, "new/", "new//", "new/.", "new/..", "dir/", "dir/.", ".", "..", "dir/.."} {
		refuse("create "+name, try(rw, name, OpenCreat, RightWrite, 0))
	}
	for _, name := range []string{"", "\x00", long, path, ".", "..", "dir", "dir/", "dir/.", "dir/..", "inside"} {
		p, n := Str(name)
		refuse("mkdir "+name, PathCreateDirectory(rw, p, n))
	}
	for _, name := range []string{"", ".", "./", "..", "dir/..", "dir/.", "dir"} { // dir is not empty
		p, n := Str(name)
		t, k := Str("t")
		refuse("rmdir "+name, PathRemoveDirectory(rw, p, n))
		refuse("unlink "+name, PathUnlinkFile(rw, p, n))
		if name != "dir" {
			refuse("rename "+name, PathRename(rw, p, n, rw, t, k))
		}
	}
	s, m := Str("target\x00")
	e, k := Str("")
	p, n := Str("sym")
	refuse("symlink to NUL", PathSymlink(s, m, rw, p, n))
	refuse("symlink to empty", PathSymlink(e, k, rw, p, n))
	_, errno := OpenLookup(rw, 0, "link_in", 0, RightRead, 0)
	refuse("open nofollow link_in", errno)
	fd, errno := Open(rw, "inside", 0, RightsAll, 0)
	if errno != Success { // a runtime may refuse rights a file can't have
		fd, errno = Open(rw, "inside", 0, RightRead, 0)
	}
	allow("open inside", errno)
	refuse("path_open at a file", try(fd, "x", OpenCreat, RightRead, 0))
	deny("path_open at a file, dot-dot", try(fd, "../inside", 0, RightRead, 0))
	refuse("path_open at stdout", try(1, "inside", 0, RightRead, 0))
	FdClose(fd)
	sub, errno := Open(rw, "dir", OpenDirectory, RightsAll, 0)
	if errno != Success {
		sub, errno = Open(rw, "dir", OpenDirectory, RightReaddir|1<<13, 0)
	}
	allow("open dir", errno)
	deny("dot-dot from a subdirectory", try(sub, "../inside", 0, RightRead, 0))
	deny("dot-dot from a subdirectory, out", try(sub, "../../secret", 0, RightRead, 0))
	deny("symlink out of a subdirectory", try(sub, "link_up", 0, RightRead, 0))
	refuse("prestat of a subdirectory", FdPrestatGet(sub, Ptr(new([2]uint32))))
	FdClose(sub)
}

func readOnly() {
	f, m := Str("file")
	x, n := Str("new")
	for _, path := range []string{"file", "file/", "link_in", "dir/../file"} {
		deny("ro: write "+path, try(ro, path, 0, RightWrite, 0))
		deny("ro: read and write "+path, try(ro, path, 0, RightRead|RightWrite, 0))
		deny("ro: truncate "+path, try(ro, path, OpenTrunc, RightRead, 0))
		deny("ro: truncate to write "+path, try(ro, path, OpenTrunc, RightWrite, 0))
		deny("ro: append "+path, try(ro, path, 0, RightWrite, FdAppend))
	}
	deny("ro: create", try(ro, "new", OpenCreat, RightRead, 0))
	deny("ro: create to write", try(ro, "new", OpenCreat, RightWrite, 0))
	deny("ro: mkdir", PathCreateDirectory(ro, x, n))
	deny("ro: symlink", PathSymlink(f, m, ro, x, n))
	deny("ro: link", PathLink(ro, 0, f, m, ro, x, n))
	deny("ro: rename", PathRename(ro, f, m, ro, x, n))
	deny("ro: unlink", PathUnlinkFile(ro, f, m))
	d, k := Str("dir")
	deny("ro: rmdir", PathRemoveDirectory(ro, d, k))
	deny("ro: utimes", PathFilestatSetTimes(ro, 0, f, m, 1, 1, 1|4))

	fd, errno := Open(ro, "file", 0, RightRead, 0)
	allow("ro: open", errno)
	deny("ro: fd_fdstat_set_rights", raised(fd))
	deny("ro: fd_filestat_set_size", FdFilestatSetSize(fd, 0))
	deny("ro: fd_filestat_set_times", FdFilestatSetTimes(fd, 1, 1, 1|4))
	deny("ro: fd_allocate", FdAllocate(fd, 0, 1000))
	_, errno = Write(fd, "x")
	deny("ro: fd_write", errno)
	v := IovecOf([]byte("x"))
	deny("ro: fd_pwrite", FdPwrite(fd, Ptr(&v), 1, 0, Ptr(new(uint32))))
	FdFdstatSetFlags(fd, FdAppend)
	_, errno = Write(fd, "x")
	deny("ro: fd_write after fd_fdstat_set_flags", errno)
	FdClose(fd)
	text := ""
	if fd, errno = Open(ro, "file", 0, RightRead, 0); errno == Success {
		text, _ = ReadAll(fd)
		FdClose(fd)
	}
	if text != "read only\n" {
		escaped++
		fmt.Printf("ro: the file changed to %q ESCAPED\n", text)
	}
}

// raised tries to give a read-only descriptor the right to write. A call that returns success but changes nothing is harmless.
func raised(fd FD) Errno {
	errno := FdFdstatSetRights(fd, RightsFile, 0)
	var stat [3]uint64
	FdFdstatGet(fd, Ptr(&stat))
	if errno == Success && stat[1]&RightWrite == 0 {
		return Inval
	}
	return errno
}

func acrossMounts() {
	f, m := Str("file")
	i, n := Str("inside")
	t, k := Str("stolen")
	deny("link from ro to rw", PathLink(ro, 0, f, m, rw, t, k))
	deny("link from ro to rw, follow", PathLink(ro, FollowSymlinks, f, m, rw, t, k))
	deny("rename from ro to rw", PathRename(ro, f, m, rw, t, k))
	deny("link from rw to ro", PathLink(rw, 0, i, n, ro, t, k))
	deny("rename from rw to ro", PathRename(rw, i, n, ro, t, k))
	deny("open ro by way of rw", try(rw, "../ro/file", 0, RightWrite, 0))
	deny("open ro by a symlink in rw", try(rw, "link_ro", 0, RightRead, 0))
	deny("write ro by a symlink in rw", try(rw, "link_ro", 0, RightWrite, 0))
	// Renumbering moves a descriptor, never its rights.
	a, errno := Open(ro, "file", 0, RightRead, 0)
	allow("open ro/file", errno)
	b, errno := Open(rw, "inside", 0, RightRead|RightWrite, 0)
	allow("open rw/inside", errno)
	if errno = FdRenumber(a, b); errno == Success {
		_, errno = Write(b, "x")
		deny("write ro/file after renumbering it over rw/inside", errno)
	}
	FdClose(b)
}

// madeHere makes its own symlinks; making one that points out may fail, following it must.
func madeHere() {
	for _, target := range []string{"../secret", "..", "../", scratch + "/secret", scratch, "dir/../../secret", "link_dir/secret", "../ro/file", "../pwned"} {
		t, m := Str(target)
		p, n := Str("made_link")
		errno := PathSymlink(t, m, rw, p, n)
		fmt.Printf("make a symlink to %s: %s\n", shorten(target), errno)
		if errno != Success {
			continue
		}
		for _, path := range []string{"made_link", "made_link/", "made_link/secret", "made_link/.", "dir/../made_link"} {
			deny(fmt.Sprintf("open %s -> %s", path, target), try(rw, path, 0, RightRead, 0))
			deny(fmt.Sprintf("create %s -> %s", path, target), try(rw, path, OpenCreat, RightWrite, 0))
		}
		q, k := Str("made_again")
		if PathRename(rw, p, n, rw, q, k) == Success {
			deny("open the renamed link to "+target, try(rw, "made_again", 0, RightRead, 0))
			PathUnlinkFile(rw, q, k)
		}
		PathUnlinkFile(rw, p, n)
	}
	// A directory that was opened, then moved: dot-dot must still stop at the mount.
	d, n := Str("walk")
	e, m := Str("walk/in")
	t, k := Str("in")
	allow("mkdir walk", PathCreateDirectory(rw, d, n))
	allow("mkdir walk/in", PathCreateDirectory(rw, e, m))
	fd, errno := Open(rw, "walk/in", OpenDirectory, RightReaddir|1<<13, 0)
	allow("open walk/in", errno)
	allow("move it up", PathRename(rw, e, m, rw, t, k))
	deny("dot-dot from the moved directory", try(fd, "../secret", 0, RightRead, 0))
	deny("dot-dot twice from the moved directory", try(fd, "../../secret", 0, RightRead, 0))
	FdClose(fd)
	PathRemoveDirectory(rw, t, k)
	PathRemoveDirectory(rw, d, n)
}
