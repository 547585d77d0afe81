/* Times of files by the shim of guest-python: now, given ones, and those that stay as they are. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

#define PATH "/data/file"

static int failed;

static void check(int holds, const char *what) {
    if (!holds)
        printf("not %s (errno %d)\n", what, errno), failed++;
}

static struct stat told(void) {
    struct stat stat_;
    check(stat(PATH, &stat_) == 0, "stat");
    return stat_;
}

static int is_recent(struct timespec time) {
    return time.tv_sec > 1700000000;
}

int main(void) {
    int fd = open(PATH, O_CREAT | O_RDWR, 0600);
    struct timespec given[] = {{5, 6}, {7, 8}}, omitted[] = {{0, UTIME_OMIT}, {0, UTIME_NOW}},
                    bad[] = {{0, 0}, {0, 1000000000}};
    check(futimens(fd, given) == 0, "futimens");
    check(told().st_atim.tv_sec == 5 && told().st_mtim.tv_sec == 7 && told().st_mtim.tv_nsec == 8, "as given");
    check(utimensat(AT_FDCWD, PATH, omitted, 0) == 0, "utimensat");
    check(told().st_atim.tv_nsec == 6 && is_recent(told().st_mtim), "one omitted, one now");
    check(utimensat(AT_FDCWD, PATH, bad, 0) == -1 && errno == EINVAL, "refused");
    futimens(fd, given);
    check(utime(PATH, NULL) == 0 && is_recent(told().st_atim) && is_recent(told().st_mtim), "utime: now");
    futimens(fd, given);
    check(utimes(PATH, NULL) == 0 && is_recent(told().st_mtim), "utimes: now");
    futimens(fd, given);
    check(futimens(fd, NULL) == 0 && is_recent(told().st_mtim), "futimens: now");
    check(symlink("gone", "/data/link") == 0 && utimensat(AT_FDCWD, "/data/link", NULL, 0) == -1, "followed");
    check(utimensat(AT_FDCWD, "/data/link", given, AT_SYMLINK_NOFOLLOW) == 0, "not followed");
    close(fd);
    printf("%d failed\n", failed);
    return failed != 0;
}
