/* Names of hosts, services and protocols. The host resolves; the rest is what programs expect around that. */

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"

/* What one look-up returns, at most: addresses times socket types. */
#define RESULTS_MAX 32
/* A port and an IPv6 address. */
#define DATA_BYTES (2 + 16)
#define HOSTNAME "localhost"

int h_errno;

/* ---- getaddrinfo */

/* Places for the host's answers, linked as it wants them. */
struct places {
    struct abi_addrinfo info[RESULTS_MAX];
    struct abi_sockaddr address[RESULTS_MAX];
    uint8_t data[RESULTS_MAX][DATA_BYTES];
};

static void link_places(struct places *places) {
    memset(places, 0, sizeof(*places));
    for (int at = 0; at < RESULTS_MAX; at++) {
        places->address[at] = (struct abi_sockaddr){0, DATA_BYTES, places->data[at]};
        places->info[at].address = &places->address[at];
        places->info[at].next = at + 1 < RESULTS_MAX ? &places->info[at + 1] : NULL;
    }
}

/* One allocation holds both structures and, for the first result, the canonical name. */
struct entry {
    struct addrinfo info;
    union {
        struct sockaddr_in inet;
        struct sockaddr_in6 inet6;
    } address;
    char canonname[];
};

static struct addrinfo *convert(const struct abi_addrinfo *from, const char *canonname) {
    const uint8_t *data = from->address->data;
    size_t name_bytes = canonname != NULL ? strlen(canonname) + 1 : 0;
    struct entry *entry = calloc(1, sizeof(*entry) + name_bytes);

    if (entry == NULL)
        return NULL;
    entry->info.ai_flags = from->flags;
    entry->info.ai_family = from->family;
    entry->info.ai_socktype = from->socktype == ABI_TYPE_STREAM ? SOCK_STREAM : SOCK_DGRAM;
    entry->info.ai_protocol = from->protocol == ABI_PROTOCOL_TCP ? IPPROTO_TCP : IPPROTO_UDP;
    entry->info.ai_addr = (struct sockaddr *)&entry->address;
    if (from->family == AF_INET) {
        entry->info.ai_addrlen = sizeof(entry->address.inet);
        entry->address.inet.sin_family = AF_INET;
        memcpy(&entry->address.inet.sin_port, data, 2);
        memcpy(&entry->address.inet.sin_addr, data + 2, 4);
    } else {
        entry->info.ai_addrlen = sizeof(entry->address.inet6);
        entry->address.inet6.sin6_family = AF_INET6;
        memcpy(&entry->address.inet6.sin6_port, data, 2);
        memcpy(&entry->address.inet6.sin6_addr, data + 2, 16);
    }
    if (canonname != NULL)
        entry->info.ai_canonname = memcpy(entry->canonname, canonname, name_bytes);
    return &entry->info;
}

static int failure(uint16_t error) {
    switch (error) {
    case ENOENT:
        return EAI_NONAME;
    case EAGAIN:
    case ETIMEDOUT:
        return EAI_AGAIN;
    case EAFNOSUPPORT:
        return EAI_FAMILY;
    default:
        errno = error;
        return EAI_SYSTEM;
    }
}

static int read_hints(const struct addrinfo *from, struct abi_addrinfo *to) {
    if (from == NULL)
        return 0;
    if ((from->ai_flags &
         ~(AI_PASSIVE | AI_CANONNAME | AI_NUMERICHOST | AI_NUMERICSERV | AI_V4MAPPED | AI_ALL | AI_ADDRCONFIG)) != 0)
        return EAI_BADFLAGS;
    if (from->ai_family != AF_UNSPEC && from->ai_family != AF_INET && from->ai_family != AF_INET6)
        return EAI_FAMILY;
    if (from->ai_socktype != 0 && from->ai_socktype != SOCK_STREAM && from->ai_socktype != SOCK_DGRAM)
        return EAI_SOCKTYPE;
    if ((from->ai_protocol != 0 && from->ai_protocol != IPPROTO_TCP && from->ai_protocol != IPPROTO_UDP) ||
        (from->ai_protocol == IPPROTO_TCP && from->ai_socktype == SOCK_DGRAM) ||
        (from->ai_protocol == IPPROTO_UDP && from->ai_socktype == SOCK_STREAM))
        return EAI_SERVICE;
    to->flags = (uint16_t)from->ai_flags;
    to->family = (uint8_t)from->ai_family;
    to->socktype = from->ai_socktype == 0             ? ABI_TYPE_ANY
                   : from->ai_socktype == SOCK_STREAM ? ABI_TYPE_STREAM
                                                      : ABI_TYPE_DGRAM;
    to->protocol = from->ai_protocol == 0 ? 0 : from->ai_protocol == IPPROTO_TCP ? ABI_PROTOCOL_TCP : ABI_PROTOCOL_UDP;
    return 0;
}

int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict results) {
    struct places places;
    struct abi_addrinfo wanted = {0}, *first = places.info;
    uint32_t count = 0;
    struct addrinfo *list = NULL, **end = &list;
    int failed = read_hints(hints, &wanted);

    if (failed != 0)
        return failed;
    if (node == NULL && service == NULL)
        return EAI_NONAME;
    link_places(&places);
    const char *host = node != NULL ? node : "", *port = service != NULL ? service : "0";
    uint16_t error = abi_sock_getaddrinfo(host, strlen(host), port, strlen(port), &wanted, &first, RESULTS_MAX, &count);
    if (error != 0)
        return failure(error);
    for (uint32_t at = 0; at < count && at < RESULTS_MAX; at++) {
        const char *canonname = at == 0 && (wanted.flags & AI_CANONNAME) != 0 && node != NULL ? node : NULL;
        *end = convert(&places.info[at], canonname);
        if (*end == NULL) {
            freeaddrinfo(list);
            return EAI_MEMORY;
        }
        end = &(*end)->ai_next;
    }
    *results = list;
    return list != NULL ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list) {
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;
        free(list);
        list = next;
    }
}

const char *gai_strerror(int error) {
    switch (error) {
    case EAI_BADFLAGS:
        return "Bad value for ai_flags";
    case EAI_NONAME:
        return "Name or service not known";
    case EAI_AGAIN:
        return "Temporary failure in name resolution";
    case EAI_FAMILY:
        return "ai_family not supported";
    case EAI_SOCKTYPE:
        return "ai_socktype not supported";
    case EAI_SERVICE:
        return "Servname not supported for ai_socktype";
    case EAI_MEMORY:
        return "Memory allocation failure";
    case EAI_SYSTEM:
        return "System error";
    case EAI_OVERFLOW:
        return "Result too large for supplied buffer";
    default:
        return "Non-recoverable failure in name resolution";
    }
}

/* ---- from addresses to names */

static int write_text(char *to, socklen_t room, const char *text) {
    if (to == NULL || room == 0)
        return 0;
    if (strlen(text) >= room)
        return EAI_OVERFLOW;
    strcpy(to, text);
    return 0;
}

/* The ABI has no way back from an address to a name: both are told as numbers. */
int getnameinfo(const struct sockaddr *restrict from, socklen_t length, char *restrict node, socklen_t node_room,
                char *restrict service, socklen_t service_room, int flags) {
    char text[INET6_ADDRSTRLEN], number[sizeof("65535")];
    const void *ip;
    in_port_t port;

    if (from->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        ip = &((const struct sockaddr_in *)from)->sin_addr;
        port = ((const struct sockaddr_in *)from)->sin_port;
    } else if (from->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        ip = &((const struct sockaddr_in6 *)from)->sin6_addr;
        port = ((const struct sockaddr_in6 *)from)->sin6_port;
    } else {
        return EAI_FAMILY;
    }
    if ((flags & NI_NAMEREQD) != 0)
        return EAI_NONAME;
    if (inet_ntop(from->sa_family, ip, text, sizeof(text)) == NULL)
        return EAI_SYSTEM;
    snprintf(number, sizeof(number), "%u", (unsigned)ntohs(port));
    int failed = write_text(node, node_room, text);
    return failed != 0 ? failed : write_text(service, service_room, number);
}

char *inet_ntoa(struct in_addr ip) {
    static char text[INET_ADDRSTRLEN];

    return (char *)inet_ntop(AF_INET, &ip, text, sizeof(text));
}

/* ---- the older calls, which answer in static memory */

static char *no_aliases[] = {NULL};

struct hostent *gethostbyname(const char *name) {
    static char found[NI_MAXHOST + 1], *list[RESULTS_MAX + 1];
    static struct in_addr addresses[RESULTS_MAX];
    static struct hostent host = {found, no_aliases, AF_INET, sizeof(addresses[0]), list};
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *results;
    size_t count = 0;
    int failed = strlen(name) > NI_MAXHOST ? EAI_NONAME : getaddrinfo(name, NULL, &hints, &results);

    if (failed != 0) {
        h_errno = failed == EAI_NONAME ? HOST_NOT_FOUND : failed == EAI_AGAIN ? TRY_AGAIN : NO_RECOVERY;
        return NULL;
    }
    for (struct addrinfo *at = results; at != NULL; at = at->ai_next, count++) {
        addresses[count] = ((struct sockaddr_in *)at->ai_addr)->sin_addr;
        list[count] = (char *)&addresses[count];
    }
    list[count] = NULL;
    strcpy(found, name);
    freeaddrinfo(results);
    return &host;
}

/* The guest's own loopback is the one that has a name. */
struct hostent *gethostbyaddr(const void *ip, socklen_t length, int family) {
    static struct in6_addr address;
    static char *list[] = {(char *)&address, NULL};
    static struct hostent host = {HOSTNAME, no_aliases, 0, 0, list};
    int is_ipv4 = family == AF_INET && length == sizeof(struct in_addr) && *(const uint8_t *)ip == IN_LOOPBACKNET;
    int is_ipv6 = family == AF_INET6 && length == sizeof(address) && memcmp(ip, &in6addr_loopback, length) == 0;

    if (!is_ipv4 && !is_ipv6) {
        h_errno = HOST_NOT_FOUND;
        return NULL;
    }
    memcpy(&address, ip, length);
    host.h_addrtype = family;
    host.h_length = (int)length;
    return &host;
}

const char *hstrerror(int error) {
    switch (error) {
    case HOST_NOT_FOUND:
        return "Unknown host";
    case TRY_AGAIN:
        return "Host name lookup failure";
    case NO_DATA:
        return "No address associated with name";
    default:
        return "Unknown server error";
    }
}

/* The host knows the ports of services; it is asked as if for an address. */
struct servent *getservbyname(const char *name, const char *protocol) {
    static char found[NI_MAXSERV], known_protocol[sizeof("tcp")];
    static struct servent service = {found, no_aliases, 0, known_protocol};
    int is_udp = protocol != NULL && strcmp(protocol, "udp") == 0;
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = is_udp ? SOCK_DGRAM : SOCK_STREAM}, *results;

    if ((protocol != NULL && !is_udp && strcmp(protocol, "tcp") != 0) || isdigit((unsigned char)name[0]) ||
        strlen(name) >= sizeof(found) || getaddrinfo(NULL, name, &hints, &results) != 0)
        return NULL;
    strcpy(found, name);
    strcpy(known_protocol, is_udp ? "udp" : "tcp");
    service.s_port = ((struct sockaddr_in *)results->ai_addr)->sin_port;
    freeaddrinfo(results);
    return &service;
}

struct servent *getservbyport(int port, const char *protocol) {
    (void)port, (void)protocol; /* The ABI has no way back here either. */
    return NULL;
}

struct protoent *getprotobyname(const char *name) {
    static struct protoent known[] = {
        {"ip", no_aliases, IPPROTO_IP},   {"icmp", no_aliases, IPPROTO_ICMP}, {"tcp", no_aliases, IPPROTO_TCP},
        {"udp", no_aliases, IPPROTO_UDP}, {"ipv6", no_aliases, IPPROTO_IPV6},
    };

    for (size_t at = 0; at < sizeof(known) / sizeof(known[0]); at++) {
        if (strcmp(known[at].p_name, name) == 0)
            return &known[at];
    }
    return NULL;
}

int gethostname(char *name, size_t room) {
    if (room < sizeof(HOSTNAME)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(name, HOSTNAME);
    return 0;
}
