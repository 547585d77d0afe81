// Sockets by the shim of guest-python: each call of it on the guest's own loopback. Prints what fails, and a count.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <netinet/tcp.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CHECK(holds) check((holds), #holds, __LINE__)
#define FAILS(call, error) check((call) == -1 && errno == (error), #call ": " #error, __LINE__)

static int checked, failed;

static void check(int holds, const char *what, int line) {
    checked++;
    if (!holds) {
        failed++;
        printf("line %d: not %s (errno %d)\n", line, what, errno);
    }
}

static struct sockaddr_in ipv4(const char *ip, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    CHECK(inet_pton(AF_INET, ip, &address.sin_addr) == 1);
    return address;
}

#define TO(address) (struct sockaddr *)&(address), sizeof(address)

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof(value);
    CHECK(getsockopt(fd, level, name, &value, &length) == 0 && length == sizeof(value));
    return value;
}

static int listener(struct sockaddr_in *address) {
    socklen_t length = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 && option(fd, SOL_SOCKET, SO_REUSEADDR) == 1);
    CHECK(bind(fd, TO(*address)) == 0);
    CHECK(option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 0);
    CHECK(listen(fd, SOMAXCONN) == 0 && option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1);
    CHECK(getsockname(fd, (struct sockaddr *)address, &length) == 0 && length == sizeof(*address));
    CHECK(address->sin_family == AF_INET && address->sin_port != 0);
    return fd;
}

static void opening(void) {
    FAILS(socket(AF_UNIX, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(socket(AF_INET, 9, 0), EPROTONOSUPPORT);
    FAILS(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    CHECK(fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK(option(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM);
    CHECK(close(fd) == 0);
    FAILS(listen(fd, 1), EBADF);
    struct sockaddr_in address = ipv4("127.0.0.1", 1);
    fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    FAILS(bind(fd, (struct sockaddr *)&address, 4), EINVAL);
    FAILS(bind(fd, NULL, 0), EINVAL);
    address.sin_family = 7;
    FAILS(bind(fd, TO(address)), EAFNOSUPPORT);
    close(fd);
}

static void streams(void) {
    struct sockaddr_in address = ipv4("127.0.0.1", 0), from, short_one = {0};
    socklen_t length = sizeof(from);
    int server = listener(&address);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, TO(address)) == 0);
    FAILS(connect(client, TO(address)), EISCONN);
    int accepted = accept(server, (struct sockaddr *)&from, &length);
    CHECK(accepted >= 0 && length == sizeof(from) && from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    struct sockaddr_in mine, peer;
    length = sizeof(mine);
    CHECK(getsockname(client, (struct sockaddr *)&mine, &length) == 0 && mine.sin_port == from.sin_port);
    length = 4; // Cut off, and its whole length told.
    CHECK(getpeername(client, (struct sockaddr *)&short_one, &length) == 0 && length == sizeof(short_one));
    CHECK(short_one.sin_port == address.sin_port && short_one.sin_addr.s_addr == 0);
    length = sizeof(peer);
    CHECK(getpeername(client, (struct sockaddr *)&peer, &length) == 0 && memcmp(&peer, &address, sizeof(peer)) == 0);

    char data[8] = {0};
    CHECK(send(client, "hello", 5, MSG_NOSIGNAL) == 5);
    CHECK(recv(accepted, data, 2, MSG_PEEK) == 2 && memcmp(data, "he", 2) == 0);
    CHECK(recv(accepted, data, 3, MSG_WAITALL) == 3 && memcmp(data, "hel", 3) == 0);
    CHECK(read(accepted, data, sizeof(data)) == 2 && memcmp(data, "lo", 2) == 0);
    FAILS(recv(accepted, data, sizeof(data), MSG_DONTWAIT), EAGAIN);
    length = sizeof(peer);
    CHECK(write(accepted, "x", 1) == 1);
    CHECK(recvfrom(client, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&peer, &length) == 1);
    CHECK(shutdown(client, SHUT_WR) == 0 && recv(accepted, data, sizeof(data), 0) == 0);
    FAILS(send(client, "x", 1, 0), EPIPE);
    CHECK(close(accepted) == 0 && recv(client, data, sizeof(data), 0) == 0);
    CHECK(close(client) == 0 && close(server) == 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    FAILS(connect(client, TO(address)), ECONNREFUSED);
    FAILS(getpeername(client, (struct sockaddr *)&peer, &length), ENOTCONN);
    close(client);
}

static void nonblocking(void) {
    struct sockaddr_in address = ipv4("127.0.0.1", 0);
    int server = listener(&address);
    CHECK(fcntl(server, F_SETFL, O_NONBLOCK) == 0);
    FAILS(accept(server, NULL, NULL), EAGAIN);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(connect(client, TO(address)) == 0 || errno == EINPROGRESS);
    struct pollfd fds[] = {{server, POLLIN, 0}, {client, POLLOUT, 0}};
    CHECK(poll(fds, COUNT(fds), 1000) > 0);
    int accepted = accept4(server, NULL, NULL, SOCK_NONBLOCK);
    CHECK(accepted >= 0 && (fcntl(accepted, F_GETFL) & O_NONBLOCK) != 0);
    FAILS(accept4(server, NULL, NULL, 1), EINVAL);
    CHECK(poll(&fds[1], 1, 1000) == 1 && option(client, SOL_SOCKET, SO_ERROR) == 0);
    char data[4];
    FAILS(recv(accepted, data, sizeof(data), 0), EAGAIN);
    struct pollfd quiet = {accepted, POLLIN, 0};
    CHECK(poll(&quiet, 1, 1) == 0);
    CHECK(close(client) == 0 && poll(&quiet, 1, 1000) == 1 && recv(accepted, data, sizeof(data), 0) == 0);
    close(accepted);
    close(server);
}

static void waiting(void) {
    int fds[2];
    fd_set readable, writable, exceptional;
    struct timeval wait = {0, 1000}, wrong = {0, 1000000};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    FD_ZERO(&readable), FD_ZERO(&writable), FD_ZERO(&exceptional);
    FD_SET(fds[0], &readable), FD_SET(fds[0], &exceptional);
    CHECK(select(fds[0] + 1, &readable, NULL, &exceptional, &wait) == 0);
    CHECK(!FD_ISSET(fds[0], &readable) && !FD_ISSET(fds[0], &exceptional));
    CHECK(send(fds[1], "x", 1, 0) == 1);
    FD_SET(fds[0], &readable), FD_SET(fds[1], &writable), FD_SET(fds[0], &exceptional);
    CHECK(select(FD_SETSIZE, &readable, &writable, &exceptional, NULL) == 2);
    CHECK(FD_ISSET(fds[0], &readable) && FD_ISSET(fds[1], &writable) && !FD_ISSET(fds[0], &exceptional));
    FAILS(select(FD_SETSIZE, &readable, NULL, NULL, &wrong), EINVAL);
    FAILS(select(-1, &readable, NULL, NULL, &wait), EINVAL);
    close(fds[0]);
    close(fds[1]);
}

static void datagrams(void) {
    struct sockaddr_in a_at = ipv4("127.0.0.1", 0), b_at = a_at, from;
    socklen_t length = sizeof(a_at);
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(a, TO(a_at)) == 0 && getsockname(a, (struct sockaddr *)&a_at, &length) == 0);
    CHECK(bind(b, TO(b_at)) == 0 && getsockname(b, (struct sockaddr *)&b_at, &length) == 0);
    char data[8] = {0};
    CHECK(sendto(a, "to b", 4, MSG_DONTWAIT, TO(b_at)) == 4 && sendto(a, "", 0, 0, TO(b_at)) == 0);
    CHECK(recvfrom(b, data, sizeof(data), 0, (struct sockaddr *)&from, &length) == 4 && memcmp(data, "to b", 4) == 0);
    CHECK(memcmp(&from, &a_at, sizeof(from)) == 0);
    CHECK(recvfrom(b, data, sizeof(data), 0, NULL, NULL) == 0);
    FAILS(send(b, "x", 1, 0), EDESTADDRREQ);
    CHECK(connect(b, TO(from)) == 0 && send(b, "back", 4, 0) == 4 && recv(a, data, 2, 0) == 2);
    FAILS(recv(a, data, sizeof(data), MSG_DONTWAIT), EAGAIN);
    CHECK(sendto(b, "more", 4, 0, NULL, 0) == 4 && recv(a, data, sizeof(data), 0) == 4);
    close(a);
    close(b);
}

static void ipv6(void) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback}, from;
    socklen_t length = sizeof(address);
    int server = socket(AF_INET6, SOCK_STREAM, 0), client = socket(AF_INET6, SOCK_STREAM, 0), on = 1, off = 0;
    CHECK(setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == 0);
    FAILS(setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)), ENOTSUP);
    CHECK(bind(server, TO(address)) == 0 && listen(server, 1) == 0);
    CHECK(getsockname(server, (struct sockaddr *)&address, &length) == 0 && length == sizeof(address));
    CHECK(connect(client, TO(address)) == 0);
    int accepted = accept(server, (struct sockaddr *)&from, &length);
    CHECK(accepted >= 0 && memcmp(&from.sin6_addr, &in6addr_loopback, sizeof(from.sin6_addr)) == 0);
    CHECK(from.sin6_family == AF_INET6 && from.sin6_port != 0);
    struct sockaddr_in other = ipv4("127.0.0.1", 1);
    CHECK(connect(accepted, TO(other)) == -1);
    close(accepted);
    close(client);
    close(server);
}

static void options(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1, bytes = 1 << 16;
    int flags[] = {SO_REUSEADDR, SO_KEEPALIVE, SO_BROADCAST, SO_DONTROUTE, SO_OOBINLINE};
    for (size_t at = 0; at < COUNT(flags); at++)
        CHECK(setsockopt(fd, SOL_SOCKET, flags[at], &on, sizeof(on)) == 0 && option(fd, SOL_SOCKET, flags[at]) == 1);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) == 0 && option(fd, SOL_SOCKET, SO_RCVBUF) > 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 && option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
    CHECK(option(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM && option(fd, SOL_SOCKET, SO_RCVLOWAT) == 1);
    FAILS(setsockopt(fd, IPPROTO_IP, SO_REUSEADDR, &on, sizeof(on)), ENOPROTOOPT);
    FAILS(setsockopt(fd, SOL_SOCKET, 15, &on, sizeof(on)), ENOPROTOOPT);
    struct linger linger = {1, 2}, told = {0};
    socklen_t length = sizeof(told);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &told, &length) == 0 && told.l_onoff == 1 && told.l_linger == 2);
    struct timeval timeout = {.tv_usec = 1000}, kept = {0};
    length = sizeof(kept);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kept, &length) == 0 && kept.tv_usec == 1000 && kept.tv_sec == 0);
    close(fd);
}

static void pairs(void) {
    int fds[2];
    char data[4];
    FAILS(socketpair(AF_INET6, SOCK_STREAM, 0, fds), EAFNOSUPPORT);
    FAILS(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), EOPNOTSUPP);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    FAILS(recv(fds[0], data, sizeof(data), 0), EAGAIN);
    FAILS(recv(fds[1], data, sizeof(data), 0), EAGAIN);
    CHECK(send(fds[0], "a", 1, 0) == 1 && send(fds[1], "b", 1, 0) == 1);
    struct pollfd ready[] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
    while (poll(ready, COUNT(ready), 1000) == 1)
        ;
    CHECK(recv(fds[1], data, sizeof(data), 0) == 1 && data[0] == 'a');
    CHECK(recv(fds[0], data, sizeof(data), 0) == 1 && data[0] == 'b');
    CHECK(close(fds[0]) == 0 && recv(fds[1], data, sizeof(data), 0) == 0 && close(fds[1]) == 0);
}

int main(void) {
    opening();
    streams();
    nonblocking();
    waiting();
    datagrams();
    ipv6();
    options();
    pairs();
    printf("%d of %d checks failed\n", failed, checked);
    return failed != 0;
}
