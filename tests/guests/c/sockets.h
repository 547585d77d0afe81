// The calls of WasmEdge's socket extension, in the version that VERSION says, each with what it can do and with every
// error that a guest can provoke on its own loopback. Prints what isn't as it should be, and how much was looked at.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) int32_t name

struct buffer {
    void *bytes;
    uint32_t len;
};

struct addrinfo {
    uint16_t flags;
    uint8_t family, type;
    uint32_t protocol, address_len;
    struct sockaddr {
        uint32_t family, len;
        uint8_t *data;
    } *address;
    char *name;
    uint32_t name_len;
    struct addrinfo *next;
};

IMPORT(sock_open)(uint32_t family, uint32_t type, uint32_t *fd);
IMPORT(sock_bind)(uint32_t fd, struct buffer *address, uint32_t port);
IMPORT(sock_listen)(uint32_t fd, uint32_t backlog);
IMPORT(sock_connect)(uint32_t fd, struct buffer *address, uint32_t port);
IMPORT(sock_getsockopt)(uint32_t fd, uint32_t level, uint32_t name, void *value, uint32_t *len);
IMPORT(sock_setsockopt)(uint32_t fd, uint32_t level, uint32_t name, const void *value, uint32_t len);
IMPORT(sock_send_to)
(uint32_t fd, const void *list, uint32_t count, struct buffer *to, uint32_t port, uint32_t flags, uint32_t *sent);
IMPORT(sock_getaddrinfo)
(const char *node, uint32_t node_len, const char *service, uint32_t service_len, const struct addrinfo *hints,
 struct addrinfo **result, uint32_t max, uint32_t *len);
#if VERSION == 1
IMPORT(sock_accept)(uint32_t fd, uint32_t *accepted);
IMPORT(sock_recv_from)
(uint32_t fd, const void *list, uint32_t count, struct buffer *from, uint32_t flags, uint32_t *received,
 uint16_t *out_flags);
IMPORT(sock_getlocaladdr)(uint32_t fd, struct buffer *address, uint32_t *family, uint32_t *port);
IMPORT(sock_getpeeraddr)(uint32_t fd, struct buffer *address, uint32_t *family, uint32_t *port);
#else
IMPORT(sock_accept)(uint32_t fd, uint32_t flags, uint32_t *accepted);
IMPORT(sock_recv_from)
(uint32_t fd, const void *list, uint32_t count, struct buffer *from, uint32_t flags, uint32_t *port,
 uint32_t *received, uint16_t *out_flags);
IMPORT(sock_getlocaladdr)(uint32_t fd, struct buffer *address, uint32_t *port);
IMPORT(sock_getpeeraddr)(uint32_t fd, struct buffer *address, uint32_t *port);
#endif

enum { INET4 = 1, INET6 = 2, UNIX = 3, DGRAM = 1, STREAM = 2 };
enum { SO_REUSEADDR = 0, SO_TYPE, SO_ERROR, SO_SNDBUF = 5, SO_RCVBUF, SO_KEEPALIVE, SO_LINGER = 9, SO_ACCEPTCONN = 13 };
enum { LEVEL_TCP = 6, LEVEL_IPV6 = 41, TCP_NODELAY = 1, IPV6_V6ONLY = 26 };
enum { CLOSED = 999 };

static int checked, failed;
// Outside all memory that a module of this size has.
#define NOWHERE ((void *)0xfffffff0u)

static void check(int holds, const char *what, int line) {
    checked++;
    if (!holds) {
        failed++;
        printf("line %d: %s\n", line, what);
    }
}
#define CHECK(condition) check((condition), #condition, __LINE__)

static void expect(int got, int expected, const char *call, int line) {
    checked++;
    if (got != expected) {
        failed++;
        printf("line %d: %s is %d, not %d\n", line, call, got, expected);
    }
}
#define EXPECT(errno, call) expect((call), __WASI_ERRNO_##errno, #call, __LINE__)

// An address in the form of the version, with a place for what the host writes.
struct place {
    struct buffer buffer;
    uint8_t bytes[128];
};

static struct place place(uint32_t family, const char *name) {
    static const uint8_t loopback4[4] = {127, 0, 0, 1}, loopback6[16] = {[15] = 1};
    struct place at = {0};
    // The first version has names only where the second has them.
    int tagged = VERSION == 2 || family == UNIX;
    uint8_t *to = at.bytes + (tagged ? 2 : 0);
    at.buffer.len = tagged ? 128 : family == INET4 ? 4 : 16;
    at.bytes[0] = tagged ? (uint8_t)family : 0;
    if (family == UNIX)
        strcpy((char *)to, name);
    else
        memcpy(to, family == INET4 ? loopback4 : loopback6, family == INET4 ? 4 : 16);
    return at;
}

static struct buffer *at(struct place *place) {
    place->buffer.bytes = place->bytes;
    return &place->buffer;
}

static struct place out(uint32_t family) {
    struct place to = place(family == UNIX ? UNIX : INET6, "");
    memset(to.bytes, 0, sizeof to.bytes);
    return to;
}

static int local(uint32_t fd, struct place *to, uint32_t *port) {
#if VERSION == 1
    uint32_t family;
    return sock_getlocaladdr(fd, at(to), &family, port);
#else
    return sock_getlocaladdr(fd, at(to), port);
#endif
}

static int peer(uint32_t fd, struct place *to, uint32_t *port) {
#if VERSION == 1
    uint32_t family;
    return sock_getpeeraddr(fd, at(to), &family, port);
#else
    return sock_getpeeraddr(fd, at(to), port);
#endif
}

static int accept_from(uint32_t fd, uint32_t *accepted) {
#if VERSION == 1
    return sock_accept(fd, accepted);
#else
    return sock_accept(fd, 0, accepted);
#endif
}

static int receive_from(uint32_t fd, void *bytes, uint32_t len, struct place *from, uint32_t *port, uint32_t *received) {
    __wasi_iovec_t list = {bytes, len};
    uint16_t flags;
#if VERSION == 1
    *port = 0;
    return sock_recv_from(fd, &list, 1, at(from), 0, received, &flags);
#else
    return sock_recv_from(fd, &list, 1, at(from), 0, port, received, &flags);
#endif
}

static int send_to(uint32_t fd, const char *text, struct place *to, uint32_t port) {
    __wasi_ciovec_t list = {(const uint8_t *)text, strlen(text)};
    uint32_t sent = 0;
    int done = sock_send_to(fd, &list, 1, at(to), port, 0, &sent);
    return done ? done : sent == strlen(text) ? 0 : -1;
}

static int send_text(uint32_t fd, const char *text) {
    __wasi_ciovec_t list = {(const uint8_t *)text, strlen(text)};
    __wasi_size_t sent = 0;
    int done = __wasi_sock_send(fd, &list, 1, 0, &sent);
    return done ? done : sent == strlen(text) ? 0 : -1;
}

// Receives exactly the text.
static int receive_text(uint32_t fd, const char *text) {
    uint8_t bytes[64];
    __wasi_iovec_t list = {bytes, sizeof bytes};
    __wasi_size_t received = 0;
    __wasi_roflags_t flags;
    int done = __wasi_sock_recv(fd, &list, 1, 0, &received, &flags);
    return done ? done : received == strlen(text) && !memcmp(bytes, text, received) ? 0 : -1;
}

static uint32_t socket_of(uint32_t family, uint32_t type, int nonblock) {
    uint32_t fd = CLOSED;
    EXPECT(SUCCESS, sock_open(family, type, &fd));
    if (nonblock)
        EXPECT(SUCCESS, __wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_NONBLOCK));
    return fd;
}

static int32_t option(uint32_t fd, uint32_t level, uint32_t name) {
    int32_t value = -1;
    uint32_t len = 4;
    int done = sock_getsockopt(fd, level, name, &value, &len);
    return done ? -done : value;
}

static int set(uint32_t fd, uint32_t level, uint32_t name, int32_t value) {
    return sock_setsockopt(fd, level, name, &value, 4);
}

// Whether the descriptor is ready at once, for reading or writing.
static int ready(uint32_t fd, uint8_t type) {
    __wasi_subscription_t both[2] = {
        {.userdata = 1, .u = {.tag = type, .u.fd_read.file_descriptor = (int)fd}},
        {.userdata = 2, .u = {.tag = __WASI_EVENTTYPE_CLOCK, .u.clock = {.id = __WASI_CLOCKID_MONOTONIC}}},
    };
    __wasi_event_t events[2];
    __wasi_size_t count = 0;
    EXPECT(SUCCESS, __wasi_poll_oneoff(both, events, 2, &count));
    return count > 0 && events[0].userdata == 1 && events[0].error == 0;
}
#define READABLE(fd) ready(fd, __WASI_EVENTTYPE_FD_READ)
#define WRITABLE(fd) ready(fd, __WASI_EVENTTYPE_FD_WRITE)

static uint32_t listener(uint32_t family, const char *name, uint32_t backlog, uint32_t *port) {
    struct place where = place(family, name), told = out(family);
    uint32_t fd = socket_of(family, STREAM, 1);
    EXPECT(SUCCESS, sock_bind(fd, at(&where), 0));
    EXPECT(INVAL, sock_bind(fd, at(&where), 0));
    EXPECT(SUCCESS, sock_listen(fd, backlog));
    CHECK(option(fd, 0, SO_ACCEPTCONN) == 1);
    EXPECT(SUCCESS, local(fd, &told, port));
    CHECK(family == UNIX || *port >= 49152);
    CHECK(!memcmp(told.bytes, where.bytes, VERSION == 2 ? 18 : family == INET4 ? 4 : 16));
    return fd;
}

static void streams(uint32_t family) {
    uint32_t port = 0, own = 0, theirs = 0, server = CLOSED;
    uint32_t from = listener(family, "/run/app.sock", 4, &port);
    struct place to = place(family, "/run/app.sock"), told = out(family), seen = out(family);
    uint32_t client = socket_of(family, STREAM, 0);
    EXPECT(AGAIN, accept_from(from, &server));
    CHECK(!READABLE(from));
    EXPECT(NOTCONN, peer(client, &told, &theirs));
    EXPECT(NOTCONN, send_text(client, "x"));
    EXPECT(NOTCONN, receive_text(client, ""));
    EXPECT(SUCCESS, sock_connect(client, at(&to), port));
    EXPECT(ISCONN, sock_connect(client, at(&to), port));
    CHECK(READABLE(from));
    EXPECT(SUCCESS, accept_from(from, &server));
    EXPECT(SUCCESS, __wasi_fd_fdstat_set_flags(server, __WASI_FDFLAGS_NONBLOCK));
    EXPECT(SUCCESS, local(client, &told, &own));
    EXPECT(SUCCESS, peer(server, &seen, &theirs));
    CHECK(own == theirs && !memcmp(told.bytes, seen.bytes, 128));
    EXPECT(AGAIN, receive_text(server, ""));
    CHECK(!READABLE(server) && WRITABLE(server));
    EXPECT(SUCCESS, send_text(client, "ping"));
    CHECK(READABLE(server));
    EXPECT(SUCCESS, receive_text(server, "ping"));
    // On streams the address is not heeded, and who sent is who is connected.
    EXPECT(SUCCESS, send_to(server, "pong", &to, 1));
    uint8_t bytes[8];
    uint32_t count = 0;
    if (VERSION == 1 && family == UNIX) {
        // The first version has no place for a name there.
        EXPECT(AFNOSUPPORT, receive_from(client, bytes, 2, &seen, &theirs, &count));
        EXPECT(SUCCESS, receive_text(client, "pong"));
    } else {
        EXPECT(SUCCESS, receive_from(client, bytes, 2, &seen, &theirs, &count));
        CHECK(count == 2 && !memcmp(bytes, "po", 2));
        EXPECT(SUCCESS, receive_text(client, "ng"));
    }
    // Half-close.
    EXPECT(SUCCESS, __wasi_sock_shutdown(client, __WASI_SDFLAGS_WR));
    EXPECT(PIPE, send_text(client, "x"));
    EXPECT(SUCCESS, receive_text(server, ""));
    EXPECT(SUCCESS, send_text(server, "still heard"));
    EXPECT(SUCCESS, receive_text(client, "still heard"));
    EXPECT(SUCCESS, __wasi_fd_close(server));
    EXPECT(SUCCESS, receive_text(client, ""));
    // A listener that has shut down.
    EXPECT(NOTCONN, __wasi_sock_shutdown(from, __WASI_SDFLAGS_WR));
    EXPECT(SUCCESS, __wasi_sock_shutdown(from, __WASI_SDFLAGS_RD));
    EXPECT(INVAL, accept_from(from, &server));
    uint32_t late = socket_of(family, STREAM, 0);
    EXPECT(CONNREFUSED, sock_connect(late, at(&to), port));
    EXPECT(NOTCONN, __wasi_sock_shutdown(late, __WASI_SDFLAGS_RD));
    if (family != UNIX) {
        EXPECT(ADDRINUSE, sock_bind(late, at(&to), port));
        EXPECT(SUCCESS, __wasi_fd_close(from));
        EXPECT(SUCCESS, sock_bind(late, at(&to), port));
    } else {
        EXPECT(SUCCESS, __wasi_fd_close(from));
        EXPECT(NOENT, sock_connect(late, at(&to), port));
    }
    EXPECT(SUCCESS, __wasi_fd_close(client));
    EXPECT(SUCCESS, __wasi_fd_close(late));
}

static void datagrams(uint32_t family) {
    uint32_t server = socket_of(family, DGRAM, 1), client = socket_of(family, DGRAM, 1), port = 0, count = 0;
    struct place to = place(family, ""), from = out(family);
    uint8_t bytes[16];
    EXPECT(SUCCESS, sock_bind(server, at(&to), 5353));
    EXPECT(AGAIN, receive_from(server, bytes, sizeof bytes, &from, &port, &count));
    EXPECT(DESTADDRREQ, send_text(client, "x"));
    EXPECT(INVAL, send_to(client, "x", &to, 0));
    EXPECT(SUCCESS, send_to(client, "query", &to, 5353));
    CHECK(READABLE(server) && WRITABLE(server));
    EXPECT(SUCCESS, receive_from(server, bytes, 3, &from, &port, &count));
    CHECK(count == 3 && !memcmp(bytes, "que", 3));
    EXPECT(AGAIN, receive_from(server, bytes, sizeof bytes, &from, &port, &count));
    uint32_t own = 0;
    EXPECT(SUCCESS, local(client, &from, &own));
    CHECK(VERSION == 1 || own == port);
    EXPECT(SUCCESS, sock_connect(client, at(&to), 5353));
    EXPECT(SUCCESS, peer(client, &from, &port));
    CHECK(port == 5353);
    EXPECT(SUCCESS, send_text(client, ""));
    EXPECT(SUCCESS, receive_from(server, bytes, sizeof bytes, &from, &port, &count));
    CHECK(count == 0);
    EXPECT(SUCCESS, send_to(server, "answer", &to, own));
    EXPECT(SUCCESS, receive_text(client, "answer"));
    EXPECT(SUCCESS, __wasi_fd_close(server));
    EXPECT(SUCCESS, send_text(client, "x"));
    EXPECT(CONNREFUSED, send_text(client, "x"));
    EXPECT(NOTSUP, sock_listen(client, 1));
    EXPECT(NOTSUP, accept_from(client, &server));
    static char huge[65508];
    memset(huge, 'x', sizeof huge - 1);
    EXPECT(SUCCESS, send_to(client, huge, &to, 9));
    __wasi_ciovec_t list = {(const uint8_t *)huge, sizeof huge};
    EXPECT(MSGSIZE, sock_send_to(client, &list, 1, at(&to), 9, 0, &count));
    EXPECT(SUCCESS, __wasi_fd_close(client));
}

static void backlog(void) {
    uint32_t port = 0, clients[4], accepted = CLOSED;
    uint32_t from = listener(INET4, "", 2, &port);
    struct place to = place(INET4, "");
    for (int i = 0; i < 4; i++) {
        clients[i] = socket_of(INET4, STREAM, 1);
        int done = sock_connect(clients[i], at(&to), port);
        CHECK(done == (i < 2 ? __WASI_ERRNO_SUCCESS : __WASI_ERRNO_INPROGRESS));
    }
    EXPECT(ALREADY, sock_connect(clients[2], at(&to), port));
    CHECK(!WRITABLE(clients[2]) && option(clients[2], 0, SO_ERROR) == 0);
    EXPECT(AGAIN, send_text(clients[2], "x"));
    uint32_t patient = socket_of(INET4, STREAM, 0);
    EXPECT(TIMEDOUT, sock_connect(patient, at(&to), port));
    EXPECT(SUCCESS, accept_from(from, &accepted));
    CHECK(WRITABLE(clients[2]) && option(clients[2], 0, SO_ERROR) == 0);
    EXPECT(SUCCESS, send_text(clients[2], "x"));
    EXPECT(SUCCESS, __wasi_fd_close(from));
    CHECK(WRITABLE(clients[3]) && option(clients[3], 0, SO_ERROR) == __WASI_ERRNO_CONNREFUSED);
    CHECK(option(clients[3], 0, SO_ERROR) == 0);
    EXPECT(SUCCESS, receive_text(clients[1], ""));
    for (int i = 0; i < 4; i++)
        EXPECT(SUCCESS, __wasi_fd_close(clients[i]));
    EXPECT(SUCCESS, __wasi_fd_close(patient));
    EXPECT(SUCCESS, __wasi_fd_close(accepted));
}

static void options(void) {
    uint32_t fd = socket_of(INET6, STREAM, 0), datagrams = socket_of(INET4, DGRAM, 0);
    CHECK(option(fd, 0, SO_TYPE) == STREAM && option(datagrams, 0, SO_TYPE) == DGRAM);
    for (uint32_t name = SO_REUSEADDR; name <= SO_KEEPALIVE; name += SO_KEEPALIVE) {
        CHECK(option(fd, 0, name) == 0);
        EXPECT(SUCCESS, set(fd, 0, name, 1));
        CHECK(option(fd, 0, name) == 1);
    }
    EXPECT(SUCCESS, set(fd, LEVEL_TCP, TCP_NODELAY, 1));
    EXPECT(SUCCESS, set(fd, 0, SO_SNDBUF, 65536));
    CHECK(option(fd, LEVEL_TCP, TCP_NODELAY) == 1 && option(fd, 0, SO_SNDBUF) == 65536);
    CHECK(option(fd, LEVEL_IPV6, IPV6_V6ONLY) == 1);
    EXPECT(NOTSUP, set(fd, LEVEL_IPV6, IPV6_V6ONLY, 0));
    EXPECT(NOPROTOOPT, set(fd, 0, 99, 1));
    EXPECT(NOPROTOOPT, set(fd, 0, SO_TYPE, 1));
    EXPECT(INVAL, sock_setsockopt(fd, 0, SO_KEEPALIVE, &fd, 3));
    int32_t linger[2] = {1, 5}, told[2] = {0};
    uint32_t len = sizeof told;
    EXPECT(SUCCESS, sock_setsockopt(fd, 0, SO_LINGER, linger, sizeof linger));
    EXPECT(SUCCESS, sock_getsockopt(fd, 0, SO_LINGER, told, &len));
    CHECK(len == 8 && told[0] == 1 && told[1] == 5);
    len = 4;
    EXPECT(INVAL, sock_getsockopt(fd, 0, SO_LINGER, told, &len));
    EXPECT(NOPROTOOPT, sock_getsockopt(fd, 0, 99, told, &len));
    EXPECT(FAULT, sock_getsockopt(fd, 0, SO_TYPE, NOWHERE, &len));
    EXPECT(FAULT, sock_getsockopt(fd, 0, SO_TYPE, told, NOWHERE));
    EXPECT(FAULT, sock_setsockopt(fd, 0, SO_KEEPALIVE, NOWHERE, 4));
    EXPECT(SUCCESS, __wasi_fd_close(fd));
    EXPECT(SUCCESS, __wasi_fd_close(datagrams));
}

static int look_up(const char *node, const char *service, uint8_t family, uint16_t flags, uint8_t data[4][26]) {
    struct sockaddr addresses[4];
    struct addrinfo infos[4], hints = {.flags = flags, .family = family, .type = STREAM};
    for (int i = 0; i < 4; i++) {
        addresses[i] = (struct sockaddr){0, 26, data[i]};
        infos[i] = (struct addrinfo){.address = &addresses[i], .next = i < 3 ? &infos[i + 1] : NULL};
    }
    struct addrinfo *first = infos;
    uint32_t count = 0;
    int done = sock_getaddrinfo(node, strlen(node), service, strlen(service), &hints, &first, 4, &count);
    return done ? -done : (int)count;
}

static void names(void) {
    uint8_t data[4][26];
    CHECK(look_up("localhost", "http", INET4, 0, data) == 1);
    CHECK(!memcmp(data[0], "\0\120\177\0\0\1", 6));
    CHECK(look_up("localhost", "80", 0, 0, data) == 2);
    CHECK(look_up("::1", "443", INET6, 4, data) == 1 && data[0][17] == 1);
    CHECK(look_up("10.1.2.3", "", INET4, 0, data) == 1);
    CHECK(look_up("", "80", INET4, 1, data) == 1 && !memcmp(data[0] + 2, "\0\0\0\0", 4));
    CHECK(look_up("no.such.name", "80", INET4, 0, data) == -__WASI_ERRNO_NOENT);
    CHECK(look_up("localhost", "no-service", INET4, 0, data) == -__WASI_ERRNO_NOENT);
    CHECK(look_up("::1", "80", INET4, 0, data) == -__WASI_ERRNO_NOENT);
    CHECK(look_up("name", "80", INET4, 4, data) == -__WASI_ERRNO_NOENT);
    CHECK(look_up("localhost", "80", UNIX, 0, data) == -__WASI_ERRNO_AFNOSUPPORT);
    CHECK(look_up("localhost", "80", INET4, 128, data) == -__WASI_ERRNO_INVAL);
    CHECK(look_up("\xff", "80", INET4, 0, data) == -__WASI_ERRNO_ILSEQ);
    static char name[301];
    memset(name, 'a', 300);
    CHECK(look_up(name, "80", INET4, 0, data) == -__WASI_ERRNO_NAMETOOLONG);
    struct addrinfo *none = NULL;
    uint32_t count;
    EXPECT(INVAL, sock_getaddrinfo("localhost", 9, "80", 2, NULL, &none, 4, &count));
    EXPECT(FAULT, sock_getaddrinfo(NOWHERE, 99, "80", 2, NULL, &none, 4, &count));
    EXPECT(FAULT, sock_getaddrinfo("localhost", 9, "80", 2, NULL, NOWHERE, 4, &count));
}

static void errors(void) {
    uint32_t fd = socket_of(INET4, STREAM, 0), six = socket_of(INET6, STREAM, 0), other = CLOSED;
    struct place to = place(INET4, ""), to6 = place(INET6, "");
    EXPECT(AFNOSUPPORT, sock_open(0, STREAM, &other));
    EXPECT(AFNOSUPPORT, sock_open(4, STREAM, &other));
    EXPECT(INVAL, sock_open(INET4, 0, &other));
    EXPECT(INVAL, sock_open(INET4, 3, &other));
    EXPECT(FAULT, sock_open(INET4, STREAM, NOWHERE));
    // No descriptor, and one that is no socket.
    for (uint32_t bad = 1; bad <= CLOSED; bad += CLOSED - 1) {
        int expected = bad == 1 ? __WASI_ERRNO_NOTSOCK : __WASI_ERRNO_BADF;
        uint32_t port;
        CHECK(sock_bind(bad, at(&to), 80) == expected);
        CHECK(sock_listen(bad, 1) == expected);
        CHECK(sock_connect(bad, at(&to), 80) == expected);
        CHECK(accept_from(bad, &other) == expected);
        CHECK(send_text(bad, "x") == expected);
        CHECK(receive_text(bad, "") == expected);
        CHECK(send_to(bad, "x", &to, 80) == expected);
        CHECK(receive_from(bad, NULL, 0, &to, &port, &port) == expected);
        CHECK(local(bad, &to, &port) == expected);
        CHECK(peer(bad, &to, &port) == expected);
        CHECK(option(bad, 0, SO_TYPE) == -expected);
        CHECK(set(bad, 0, SO_KEEPALIVE, 1) == expected);
        CHECK(__wasi_sock_shutdown(bad, __WASI_SDFLAGS_RD) == expected);
    }
    to = place(INET4, "");
    EXPECT(AFNOSUPPORT, sock_bind(fd, at(&to6), 80));
    EXPECT(AFNOSUPPORT, sock_connect(fd, at(&to6), 80));
    EXPECT(AFNOSUPPORT, sock_bind(six, at(&to), 80));
    EXPECT(FAULT, sock_bind(fd, NOWHERE, 80));
    EXPECT(FAULT, sock_connect(fd, NOWHERE, 80));
    EXPECT(INVAL, sock_bind(fd, at(&to), 65536));
    struct buffer short_one = {to.bytes, 3}, far = {NOWHERE, to.buffer.len};
    EXPECT(INVAL, sock_bind(fd, &short_one, 80));
    EXPECT(FAULT, sock_connect(fd, &far, 80));
    // Addresses that are another's, nobody's, or out of reach.
    uint8_t *ip = to.bytes + (VERSION == 2 ? 2 : 0);
    ip[0] = 10;
    EXPECT(ADDRNOTAVAIL, sock_bind(fd, at(&to), 80));
    EXPECT(ACCES, sock_connect(fd, at(&to), 80));
    ip[0] = 127;
    EXPECT(CONNREFUSED, sock_connect(fd, at(&to), 9));
    CHECK(option(fd, 0, SO_ERROR) == 0);
    EXPECT(INVAL, accept_from(fd, &other));
    EXPECT(INVAL, __wasi_sock_shutdown(fd, 0));
    EXPECT(SUCCESS, __wasi_fd_close(six));
    EXPECT(SUCCESS, __wasi_fd_close(fd));
    EXPECT(BADF, __wasi_fd_close(fd));
}

// As many sockets as there may be, and not one more.
static void limits(void) {
    uint32_t count = 0, fds[2048], port, accepted;
    uint32_t from = listener(INET4, "", 8, &port);
    struct place to = place(INET4, "");
    while (count < 2048 && sock_open(INET4, STREAM, &fds[count]) == 0)
        count++;
    CHECK(count >= 500 && count < 2048);
    EXPECT(MFILE, sock_open(INET4, DGRAM, &accepted));
    EXPECT(SUCCESS, sock_connect(fds[0], at(&to), port));
    EXPECT(MFILE, accept_from(from, &accepted));
    EXPECT(SUCCESS, __wasi_fd_close(fds[--count]));
    EXPECT(SUCCESS, accept_from(from, &accepted));
    EXPECT(SUCCESS, __wasi_fd_close(accepted));
    while (count > 0)
        EXPECT(SUCCESS, __wasi_fd_close(fds[--count]));
    EXPECT(SUCCESS, __wasi_fd_close(from));
}

int main(void) {
    streams(INET4);
    streams(INET6);
    streams(UNIX);
    datagrams(INET4);
    datagrams(INET6);
    backlog();
    options();
    names();
    errors();
    limits();
    printf("%s, failed: %d\n", checked > 400 ? "checked" : "too little was checked", failed);
    return failed != 0;
}
