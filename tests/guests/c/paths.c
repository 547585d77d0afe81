// Sockets as files, by what a C library has for files alone: open, fopen, read, write, poll, close; and accept, which
// preview 1 has. A mounted / holds a /dev/null of its own, which stays reachable.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void check(int holds, const char *what) {
    if (!holds) {
        printf("failed: %s (%s)\n", what, strerror(errno));
        exit(1);
    }
}

static void refused(const char *path, int flags, int expected) {
    errno = 0;
    int fd = open(path, flags);
    printf("%s: %s\n", path, fd >= 0 ? "opened" : errno == expected ? strerror(errno) : "another error");
}

// Events of the descriptor at once: 1 readable, 4 writable.
static int ready(int fd) {
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT};
    check(poll(&one, 1, 0) >= 0, "poll");
    return (one.revents & POLLIN ? 1 : 0) | (one.revents & POLLOUT ? 4 : 0);
}

static void echo(int client, int server, const char *name) {
    char bytes[32] = {0};
    struct stat stat;
    check(fstat(client, &stat) == 0 && S_ISSOCK(stat.st_mode), "a socket");
    check(ready(client) == 4 && ready(server) == 4, "both are writable");
    check(write(client, "ping", 4) == 4 && ready(server) == 5, "sent");
    check(read(server, bytes, sizeof bytes) == 4 && !memcmp(bytes, "ping", 4), "received");
    check(write(server, "pong", 4) == 4 && read(client, bytes, sizeof bytes) == 4, "answered");
    check(shutdown(client, SHUT_WR) == 0 && read(server, bytes, sizeof bytes) == 0, "half-closed");
    check(close(server) == 0 && read(client, bytes, sizeof bytes) == 0 && close(client) == 0, "closed");
    printf("%s: echo\n", name);
}

int main(void) {
    int listener = open("/dev/listen/tcp/8080", O_RDONLY | O_NONBLOCK);
    check(listener >= 0 && ready(listener) == 0, "listen");
    char line[16] = {0};
    check(read(listener, line, sizeof line) < 0 && errno == EAGAIN, "nobody has come");

    int client = open("/dev/tcp/localhost/8080", O_RDWR);
    check(client >= 0 && ready(listener) == 1, "connect by name");
    int server = accept(listener, NULL, NULL);
    check(server >= 0, "accept");
    echo(client, server, "accept");

    client = open("/dev/tcp/127.0.0.1/8080", O_RDWR | O_CREAT | O_TRUNC, 0644);
    check(client >= 0, "connect");
    check(read(listener, line, sizeof line) > 0, "read the listener");
    echo(client, atoi(line), "read");

    int sixth = open("/dev/listen/tcp/[::1]/http", O_RDONLY);
    client = open("/dev/tcp/[::1]/80", O_RDWR | O_NONBLOCK);
    check(sixth >= 0 && client >= 0, "IPv6");
    echo(client, accept(sixth, NULL, NULL), "IPv6");

    FILE *file = fopen("/dev/tcp/127.0.0.1/8080", "r+");
    check(file && fputs("by stdio\n", file) >= 0 && fflush(file) == 0, "fopen");
    server = accept(listener, NULL, NULL);
    check(read(server, line, sizeof line) == 9 && !memcmp(line, "by stdio\n", 9), "stdio");
    check(write(server, "answer\n", 7) == 7 && fgets(line, sizeof line, file), "fgets");
    printf("stdio: %s", line);
    fclose(file);
    close(server);

    refused("/dev/tcp/127.0.0.1/9", O_RDWR, ECONNREFUSED);
    refused("/dev/tcp/10.0.0.1/80", O_RDWR | O_NONBLOCK, EACCES);
    refused("/dev/tcp/no.such.name/80", O_RDWR, ENOENT);
    refused("/dev/tcp/localhost", O_RDWR, ENOENT);
    refused("/dev/listen/tcp/8080", O_RDONLY, EADDRINUSE);
    refused("/dev/listen/tcp/10.0.0.1/80", O_RDONLY, EADDRNOTAVAIL);
    int udp = open("/dev/udp/127.0.0.1/53", O_RDWR);
    check(udp >= 0 && write(udp, "query", 5) == 5, "UDP goes nowhere");
    check(write(udp, "query", 5) < 0 && errno == ECONNREFUSED, "and says so");

    int null = open("/dev/null", O_RDONLY);
    check(null >= 0 && read(null, line, sizeof line) == 14, "what is mounted is there");
    close(listener);
    refused("/dev/tcp/127.0.0.1/8080", O_RDWR, ECONNREFUSED);
    return 0;
}
