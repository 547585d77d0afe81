/* How a process begins and sleeps. wasi-libc of Debian 12 begins at `/`, whatever PWD says, and calls an interrupted
 * sleep ENOTSUP. */

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

#define NANOSECONDS 1000000000ULL

/* WASI tells a process its directory in no other way. */
__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("PWD");

    if (folder != NULL && chdir(folder) != 0)
        errno = 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    __wasi_subscription_t wait = {0};
    __wasi_event_t event;
    __wasi_size_t count;
    __wasi_errno_t error;

    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
        return ENOTSUP;
    if ((flags & ~TIMER_ABSTIME) != 0 || time->tv_sec < 0 || time->tv_nsec < 0 || time->tv_nsec >= (long)NANOSECONDS)
        return EINVAL;
    wait.u.tag = __WASI_EVENTTYPE_CLOCK;
    wait.u.u.clock.id = clock == CLOCK_REALTIME ? __WASI_CLOCKID_REALTIME : __WASI_CLOCKID_MONOTONIC;
    if ((flags & TIMER_ABSTIME) != 0)
        wait.u.u.clock.flags = __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME;
    if (__builtin_mul_overflow((__wasi_timestamp_t)time->tv_sec, NANOSECONDS, &wait.u.u.clock.timeout) ||
        __builtin_add_overflow(wait.u.u.clock.timeout, (__wasi_timestamp_t)time->tv_nsec, &wait.u.u.clock.timeout))
        wait.u.u.clock.timeout = (__wasi_timestamp_t)-1; /* for centuries */
    error = __wasi_poll_oneoff(&wait, &event, 1, &count);
    if (error == EINTR) {
        /* No more than this is left; nobody says how much less. */
        if (left != NULL && (flags & TIMER_ABSTIME) == 0)
            *left = *time;
        errno = EINTR; /* by which Python learns of interrupts */
    }
    return error != 0 ? error : event.error;
}
