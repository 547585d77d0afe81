/* Put before SQLite (-include): the system calls that WASI lacks.
 *
 * SQLite keeps account of the locks of its own connections, and asks the system about other processes only. WASI has
 * no locks, so the answer is that nobody else is there: a database belongs to one process at a time. */
#ifndef TIMECRAFT_SQLITE_H
#define TIMECRAFT_SQLITE_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/types.h>

#define F_RDLCK 0
#define F_WRLCK 1
#define F_UNLCK 2
#define F_GETLK 5
#define F_SETLK 6

static inline int sqlite_fcntl(int fd, int command, ...) {
    va_list arguments;
    int done = 0;

    va_start(arguments, command);
    if (command == F_GETLK)
        va_arg(arguments, struct flock *)->l_type = F_UNLCK;
    else if (command != F_SETLK)
        done = fcntl(fd, command, va_arg(arguments, int));
    va_end(arguments);
    return done;
}
#define fcntl sqlite_fcntl

/* What connections of one process share lies in memory as it is. */
static inline void *sqlite_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    (void)at, (void)length, (void)protection, (void)flags, (void)fd, (void)offset;
    errno = ENODEV;
    return MAP_FAILED;
}
#define mmap sqlite_mmap

static inline int sqlite_munmap(void *at, size_t length) {
    (void)at, (void)length;
    return 0;
}
#define munmap sqlite_munmap

/* Files have neither modes nor owners. */
static inline int fchmod(int fd, mode_t mode) {
    (void)fd, (void)mode;
    return 0;
}

static inline int fchown(int fd, uid_t user, gid_t group) {
    (void)fd, (void)user, (void)group;
    return 0;
}

static inline uid_t geteuid(void) {
    return 1;
}

static inline int getpagesize(void) {
    return 65536;
}

#endif
