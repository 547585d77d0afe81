/* The host's side: the socket calls that WasmEdge adds to WASI preview 1, second version.
 *
 * All return a WASI errno, which is what wasi-libc's `errno` holds. Addresses travel as 128 bytes that begin with the
 * family, in 16 bits, and go on with the IP address; ports travel beside them, in host order. */
#ifndef TIMECRAFT_ABI_H
#define TIMECRAFT_ABI_H

#include <stdint.h>

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) uint16_t abi_##name

#define ABI_TYPE_ANY 0
#define ABI_TYPE_DGRAM 1
#define ABI_TYPE_STREAM 2
#define ABI_PROTOCOL_TCP 1
#define ABI_PROTOCOL_UDP 2
#define ABI_LEVEL_SOCKET 0
#define ABI_ADDRESS_BYTES 128

struct abi_buffer {
    void *bytes;
    uint32_t length;
};

struct abi_sockaddr {
    uint32_t family;
    uint32_t length;
    void *data; /* port in network order, IP address */
};

struct abi_addrinfo {
    uint16_t flags;
    uint8_t family;
    uint8_t socktype;
    uint32_t protocol;
    uint32_t address_length;
    struct abi_sockaddr *address;
    char *canonname;
    uint32_t canonname_length;
    struct abi_addrinfo *next;
};

IMPORT(sock_open)(uint32_t family, uint32_t socktype, int32_t *fd);
IMPORT(sock_bind)(int32_t fd, struct abi_buffer *address, uint32_t port);
IMPORT(sock_listen)(int32_t fd, uint32_t backlog);
IMPORT(sock_connect)(int32_t fd, struct abi_buffer *address, uint32_t port);
IMPORT(sock_accept)(int32_t fd, uint32_t flags, int32_t *accepted);
IMPORT(sock_getlocaladdr)(int32_t fd, struct abi_buffer *address, uint32_t *port);
IMPORT(sock_getpeeraddr)(int32_t fd, struct abi_buffer *address, uint32_t *port);
IMPORT(sock_getsockopt)(int32_t fd, uint32_t level, uint32_t name, void *value, uint32_t *length);
IMPORT(sock_setsockopt)(int32_t fd, uint32_t level, uint32_t name, const void *value, uint32_t length);
IMPORT(sock_recv)
(int32_t fd, struct abi_buffer *data, uint32_t count, uint32_t flags, uint32_t *received, uint16_t *out_flags);
IMPORT(sock_recv_from)
(int32_t fd, struct abi_buffer *data, uint32_t count, struct abi_buffer *address, uint32_t flags, uint32_t *port,
 uint32_t *received, uint16_t *out_flags);
IMPORT(sock_send)(int32_t fd, struct abi_buffer *data, uint32_t count, uint32_t flags, uint32_t *sent);
IMPORT(sock_send_to)
(int32_t fd, struct abi_buffer *data, uint32_t count, struct abi_buffer *address, uint32_t port, uint32_t flags,
 uint32_t *sent);
IMPORT(sock_getaddrinfo)
(const char *node, uint32_t node_length, const char *service, uint32_t service_length, const struct abi_addrinfo *hints,
 struct abi_addrinfo **results, uint32_t results_max, uint32_t *count);

#endif
