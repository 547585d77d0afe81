/* Times of files. wasi-libc of Debian 12 takes "now" (a null pointer) for 1970. */

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <time.h>
#include <wasi/api.h>

#define NANOSECONDS 1000000000ULL

/* One time stamp, and which of the flags to set it there are. Returns -1 if it is none. */
static int stamp(const struct timespec *time, __wasi_fstflags_t set, __wasi_fstflags_t set_now, __wasi_timestamp_t *to,
                 __wasi_fstflags_t *flags) {
    if (time == NULL || time->tv_nsec == UTIME_NOW) {
        *flags |= set_now;
    } else if (time->tv_nsec != UTIME_OMIT) {
        if (time->tv_sec < 0 || time->tv_nsec < 0 || time->tv_nsec >= (long)NANOSECONDS)
            return -1;
        *to = (__wasi_timestamp_t)time->tv_sec * NANOSECONDS + (__wasi_timestamp_t)time->tv_nsec;
        *flags |= set;
    }
    return 0;
}

static int stamps(const struct timespec times[2], __wasi_timestamp_t to[2], __wasi_fstflags_t *flags) {
    const struct timespec *modified = times != NULL ? &times[1] : NULL;

    if (stamp(times, __WASI_FSTFLAGS_ATIM, __WASI_FSTFLAGS_ATIM_NOW, &to[0], flags) == 0 &&
        stamp(modified, __WASI_FSTFLAGS_MTIM, __WASI_FSTFLAGS_MTIM_NOW, &to[1], flags) == 0)
        return 0;
    errno = EINVAL;
    return -1;
}

static int result(__wasi_errno_t error) {
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

int futimens(int fd, const struct timespec times[2]) {
    __wasi_timestamp_t to[2] = {0, 0};
    __wasi_fstflags_t flags = 0;

    if (stamps(times, to, &flags) != 0)
        return -1;
    return result(__wasi_fd_filestat_set_times((__wasi_fd_t)fd, to[0], to[1], flags));
}

/* What utimensat() and its elders come down to, once the mount is found. */
int __wasilibc_nocwd_utimensat(int fd, const char *path, const struct timespec times[2], int flags) {
    __wasi_lookupflags_t lookup = (flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW;
    __wasi_timestamp_t to[2] = {0, 0};
    __wasi_fstflags_t set = 0;

    if (stamps(times, to, &set) != 0)
        return -1;
    return result(__wasi_path_filestat_set_times((__wasi_fd_t)fd, lookup, path, to[0], to[1], set));
}
