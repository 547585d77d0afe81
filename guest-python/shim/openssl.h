/* Put before every file of OpenSSL (-include). */
#ifndef TIMECRAFT_OPENSSL_H
#define TIMECRAFT_OPENSSL_H

#include <sys/socket.h>
#include <sys/types.h>

/* It uses getentropy() only where it can ask whether there is one, and takes that to be so for ELF alone; wasi-libc
 * always has it. */
#define __ELF__ 1

/* It takes this for a sign that there are such sockets. */
#undef AF_UNIX

/* It asks whether the program has more rights than its user. There are no users. */
static inline uid_t getuid(void) {
    return 0;
}
#define geteuid getuid
#define getgid getuid
#define getegid getuid

/* Files have no modes. */
static inline int chmod(const char *path, mode_t mode) {
    (void)path, (void)mode;
    return 0;
}

#endif
