/* wasi-libc's header, and what it leaves out: the calls of sockets.c and their constants. */
#ifndef TIMECRAFT_SYS_SOCKET_H
#define TIMECRAFT_SYS_SOCKET_H

#include_next <sys/socket.h>

#include <sys/types.h>

/* Linux's numbers; sockets.c has the ABI's. Options that the ABI lacks are left out, so that programs can tell. */
#define SO_REUSEADDR 2
#define SO_ERROR 4
#define SO_DONTROUTE 5
#define SO_BROADCAST 6
#define SO_SNDBUF 7
#define SO_RCVBUF 8
#define SO_KEEPALIVE 9
#define SO_OOBINLINE 10
#define SO_LINGER 13
#define SO_RCVLOWAT 18
#define SO_ACCEPTCONN 30
#define SO_RCVTIMEO 66
#define SO_SNDTIMEO 67

/* Types that socket() knows none of, for programs that name them: numbers that wasi-libc has no type for. */
#define SOCK_SEQPACKET 2
#define SOCK_RAW 3
#define SOCK_RDM 4

#define SOMAXCONN 128

#define MSG_DONTWAIT 0x40
#define MSG_NOSIGNAL 0x4000 /* There are no signals: accepted, means nothing. */

#ifdef __cplusplus
extern "C" {
#endif

int socket(int, int, int);
int socketpair(int, int, int, int[2]);
int bind(int, const struct sockaddr *, socklen_t);
int connect(int, const struct sockaddr *, socklen_t);
int listen(int, int);
int getsockname(int, struct sockaddr *__restrict, socklen_t *__restrict);
int getpeername(int, struct sockaddr *__restrict, socklen_t *__restrict);
ssize_t sendto(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
ssize_t recvfrom(int, void *__restrict, size_t, int, struct sockaddr *__restrict, socklen_t *__restrict);
int setsockopt(int, int, int, const void *, socklen_t);

#ifdef __cplusplus
}
#endif

#endif
