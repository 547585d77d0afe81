/* Sockets as POSIX has them, over the calls of abi.h. */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "abi.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int result(uint16_t error) {
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

/* ---- addresses */

struct address {
    uint8_t bytes[ABI_ADDRESS_BYTES];
    struct abi_buffer buffer;
    uint32_t port;
};

static void prepare(struct address *address) {
    memset(address->bytes, 0, sizeof(address->bytes));
    address->buffer = (struct abi_buffer){address->bytes, sizeof(address->bytes)};
    address->port = 0;
}

static int encode(struct address *to, const struct sockaddr *from, socklen_t length) {
    const void *ip;
    size_t ip_bytes;
    in_port_t port;

    prepare(to);
    if (from == NULL || length < sizeof(from->sa_family))
        return result(EINVAL);
    if (from->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *inet = (const struct sockaddr_in *)from;
        ip = &inet->sin_addr, ip_bytes = sizeof(inet->sin_addr), port = inet->sin_port;
    } else if (from->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *inet6 = (const struct sockaddr_in6 *)from;
        ip = &inet6->sin6_addr, ip_bytes = sizeof(inet6->sin6_addr), port = inet6->sin6_port;
    } else if (from->sa_family == AF_INET || from->sa_family == AF_INET6) {
        return result(EINVAL);
    } else {
        return result(EAFNOSUPPORT);
    }
    memcpy(to->bytes, &from->sa_family, sizeof(from->sa_family));
    memcpy(to->bytes + sizeof(from->sa_family), ip, ip_bytes);
    to->port = ntohs(port);
    return 0;
}

/* As POSIX asks, what doesn't fit is cut off and `length` tells the whole length. */
static void decode(const struct address *from, struct sockaddr *to, socklen_t *length) {
    union {
        struct sockaddr_in inet;
        struct sockaddr_in6 inet6;
    } whole;
    sa_family_t family;
    socklen_t whole_length = 0;

    if (to == NULL || length == NULL)
        return;
    memset(&whole, 0, sizeof(whole));
    memcpy(&family, from->bytes, sizeof(family));
    if (family == AF_INET) {
        whole.inet.sin_family = AF_INET;
        whole.inet.sin_port = htons((in_port_t)from->port);
        memcpy(&whole.inet.sin_addr, from->bytes + sizeof(family), sizeof(whole.inet.sin_addr));
        whole_length = sizeof(whole.inet);
    } else if (family == AF_INET6) {
        whole.inet6.sin6_family = AF_INET6;
        whole.inet6.sin6_port = htons((in_port_t)from->port);
        memcpy(&whole.inet6.sin6_addr, from->bytes + sizeof(family), sizeof(whole.inet6.sin6_addr));
        whole_length = sizeof(whole.inet6);
    }
    memcpy(to, &whole, *length < whole_length ? *length : whole_length);
    *length = whole_length;
}

/* ---- opening and closing */

int socket(int family, int type, int protocol) {
    int wanted = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    int stream = wanted == SOCK_STREAM;
    int32_t fd;

    if (family != AF_INET && family != AF_INET6)
        return result(EAFNOSUPPORT);
    if (!stream && wanted != SOCK_DGRAM)
        return result(EPROTONOSUPPORT);
    if (protocol != 0 && protocol != (stream ? IPPROTO_TCP : IPPROTO_UDP))
        return result(EPROTONOSUPPORT);
    if (result(abi_sock_open((uint32_t)family, stream ? ABI_TYPE_STREAM : ABI_TYPE_DGRAM, &fd)) != 0)
        return -1;
    if ((type & SOCK_NONBLOCK) != 0 && fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int bind(int fd, const struct sockaddr *to, socklen_t length) {
    struct address address;

    return encode(&address, to, length) == 0 ? result(abi_sock_bind(fd, &address.buffer, address.port)) : -1;
}

int listen(int fd, int backlog) {
    return result(abi_sock_listen(fd, backlog < 0 ? 0 : (uint32_t)backlog));
}

int connect(int fd, const struct sockaddr *to, socklen_t length) {
    struct address address;

    return encode(&address, to, length) == 0 ? result(abi_sock_connect(fd, &address.buffer, address.port)) : -1;
}

int accept4(int fd, struct sockaddr *restrict from, socklen_t *restrict length, int flags) {
    int32_t accepted;

    if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0)
        return result(EINVAL);
    if (result(abi_sock_accept(fd, (flags & SOCK_NONBLOCK) != 0 ? __WASI_FDFLAGS_NONBLOCK : 0, &accepted)) != 0)
        return -1;
    /* A peer may have gone meanwhile. That is for whoever reads from it to find out. */
    if (from != NULL && length != NULL && getpeername(accepted, from, length) != 0)
        *length = 0;
    return accepted;
}

int accept(int fd, struct sockaddr *restrict from, socklen_t *restrict length) {
    return accept4(fd, from, length, 0);
}

/* Two ends of a connection through the guest's own loopback, whatever the family: there are no pipes. */
int socketpair(int family, int type, int protocol, int fds[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    int wanted = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    int listener = -1, near = -1, far = -1;

    if (family != AF_UNIX && family != AF_INET)
        return result(EAFNOSUPPORT);
    if (wanted != SOCK_STREAM)
        return result(EOPNOTSUPP);
    /* The other end is made blocking until it is connected. */
    if ((listener = socket(AF_INET, SOCK_STREAM, protocol)) >= 0 &&
        bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0 &&
        getsockname(listener, (struct sockaddr *)&address, &length) == 0 &&
        (near = socket(AF_INET, SOCK_STREAM, protocol)) >= 0 &&
        connect(near, (struct sockaddr *)&address, length) == 0 &&
        (far = accept4(listener, NULL, NULL, type & SOCK_NONBLOCK)) >= 0 &&
        ((type & SOCK_NONBLOCK) == 0 || fcntl(near, F_SETFL, O_NONBLOCK) == 0)) {
        close(listener);
        fds[0] = near;
        fds[1] = far;
        return 0;
    }
    int error = errno;
    int opened[] = {listener, near, far};
    for (size_t at = 0; at < COUNT(opened); at++) {
        if (opened[at] >= 0)
            close(opened[at]);
    }
    return result((uint16_t)error);
}

int getsockname(int fd, struct sockaddr *restrict to, socklen_t *restrict length) {
    struct address address;

    prepare(&address);
    if (result(abi_sock_getlocaladdr(fd, &address.buffer, &address.port)) != 0)
        return -1;
    decode(&address, to, length);
    return 0;
}

int getpeername(int fd, struct sockaddr *restrict to, socklen_t *restrict length) {
    struct address address;

    prepare(&address);
    if (result(abi_sock_getpeeraddr(fd, &address.buffer, &address.port)) != 0)
        return -1;
    decode(&address, to, length);
    return 0;
}

/* ---- data */

/* Takes out the flags that the ABI lacks. Returns -1 with EAGAIN if the call would wait and must not. */
static int adapt(int fd, int *flags, short events) {
    if ((*flags & MSG_DONTWAIT) != 0) {
        struct pollfd ready = {.fd = fd, .events = events};
        if (poll(&ready, 1, 0) == 0)
            return result(EAGAIN);
    }
    *flags &= ~(MSG_DONTWAIT | MSG_NOSIGNAL);
    return 0;
}

ssize_t recv(int fd, void *data, size_t length, int flags) {
    struct abi_buffer buffer = {data, length};
    uint32_t received;
    uint16_t out_flags;

    if (adapt(fd, &flags, POLLIN) != 0)
        return -1;
    if (result(abi_sock_recv(fd, &buffer, 1, (uint32_t)flags, &received, &out_flags)) != 0)
        return -1;
    return (ssize_t)received;
}

ssize_t recvfrom(int fd, void *restrict data, size_t length, int flags, struct sockaddr *restrict from,
                 socklen_t *restrict from_length) {
    struct abi_buffer buffer = {data, length};
    struct address address;
    uint32_t received;
    uint16_t out_flags;

    if (from == NULL)
        return recv(fd, data, length, flags);
    prepare(&address);
    if (adapt(fd, &flags, POLLIN) != 0)
        return -1;
    if (result(abi_sock_recv_from(fd, &buffer, 1, &address.buffer, (uint32_t)flags, &address.port, &received,
                                  &out_flags)) != 0)
        return -1;
    decode(&address, from, from_length);
    return (ssize_t)received;
}

ssize_t send(int fd, const void *data, size_t length, int flags) {
    struct abi_buffer buffer = {(void *)data, length};
    uint32_t sent;

    if (adapt(fd, &flags, POLLOUT) != 0)
        return -1;
    return result(abi_sock_send(fd, &buffer, 1, (uint32_t)flags, &sent)) == 0 ? (ssize_t)sent : -1;
}

ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t to_length) {
    struct abi_buffer buffer = {(void *)data, length};
    struct address address;
    uint32_t sent;

    if (to == NULL)
        return send(fd, data, length, flags);
    if (encode(&address, to, to_length) != 0 || adapt(fd, &flags, POLLOUT) != 0)
        return -1;
    if (result(abi_sock_send_to(fd, &buffer, 1, &address.buffer, address.port, (uint32_t)flags, &sent)) != 0)
        return -1;
    return (ssize_t)sent;
}

/* ---- options */

/* Options of SOL_SOCKET, each at the place that is its number in the ABI. */
static const int OPTIONS[] = {
    SO_REUSEADDR, SO_TYPE,      SO_ERROR,  SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF,   SO_RCVBUF,
    SO_KEEPALIVE, SO_OOBINLINE, SO_LINGER, SO_RCVLOWAT,  SO_RCVTIMEO,  SO_SNDTIMEO, SO_ACCEPTCONN,
};

/* Other levels have the numbers of their protocols, IP itself none: its number is what the ABI has for SOL_SOCKET. */
static int translate(int level, int name, uint32_t *abi_level, uint32_t *abi_name) {
    *abi_level = (uint32_t)level;
    *abi_name = (uint32_t)name;
    if (level == IPPROTO_IP)
        return result(ENOPROTOOPT);
    if (level != SOL_SOCKET)
        return 0;
    *abi_level = ABI_LEVEL_SOCKET;
    for (size_t at = 0; at < COUNT(OPTIONS); at++) {
        if (OPTIONS[at] == name) {
            *abi_name = at;
            return 0;
        }
    }
    return result(ENOPROTOOPT);
}

int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict length) {
    uint32_t abi_level, abi_name, abi_length = *length;

    if (translate(level, name, &abi_level, &abi_name) != 0 ||
        result(abi_sock_getsockopt(fd, abi_level, abi_name, value, &abi_length)) != 0)
        return -1;
    *length = abi_length;
    if (level == SOL_SOCKET && name == SO_TYPE) {
        int type;
        memcpy(&type, value, sizeof(type));
        type = type == ABI_TYPE_STREAM ? SOCK_STREAM : SOCK_DGRAM;
        memcpy(value, &type, sizeof(type));
    }
    return 0;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    uint32_t abi_level, abi_name;

    if (translate(level, name, &abi_level, &abi_name) != 0)
        return -1;
    return result(abi_sock_setsockopt(fd, abi_level, abi_name, value, length));
}

/* ---- waiting */

/* Nothing exceptional ever happens here: there is no urgent data. wasi-libc refuses to wait for it at all. */
int select(int count, fd_set *restrict readable, fd_set *restrict writable, fd_set *restrict exceptional,
           struct timeval *restrict timeout) {
    struct timespec wait = {0};

    if (timeout != NULL) {
        if (timeout->tv_usec < 0 || timeout->tv_usec >= 1000000)
            return result(EINVAL);
        wait.tv_sec = timeout->tv_sec;
        wait.tv_nsec = (long)timeout->tv_usec * 1000;
    }
    int ready = pselect(count, readable, writable, NULL, timeout != NULL ? &wait : NULL, NULL);
    if (ready >= 0 && exceptional != NULL)
        FD_ZERO(exceptional);
    return ready;
}
