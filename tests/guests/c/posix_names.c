// Names by the shim of guest-python: what getaddrinfo() and its elders answer. Prints it.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void resolve(const char *node, const char *service, struct addrinfo hints) {
    struct addrinfo *results = NULL;
    printf("%s %s:", node ? node : "-", service ? service : "-");
    int error = getaddrinfo(node, service, &hints, &results);
    if (error != 0) {
        printf(" %s\n", gai_strerror(error));
        return;
    }
    for (struct addrinfo *at = results; at != NULL; at = at->ai_next) {
        char host[NI_MAXHOST], port[NI_MAXSERV];
        error = getnameinfo(at->ai_addr, at->ai_addrlen, host, sizeof(host), port, sizeof(port), 0);
        printf(" [%s]:%s", error == 0 ? host : gai_strerror(error), port);
        printf("/%s%s", at->ai_socktype == SOCK_STREAM ? "tcp" : "udp", at->ai_canonname ? " " : "");
        printf("%s", at->ai_canonname ? at->ai_canonname : "");
        if ((at->ai_protocol == IPPROTO_TCP) != (at->ai_socktype == SOCK_STREAM))
            printf(" protocol %d", at->ai_protocol);
    }
    printf("\n");
    freeaddrinfo(results);
}

static void older(void) {
    struct hostent *host = gethostbyname("localhost");
    printf("%s %s\n", host->h_name, inet_ntoa(*(struct in_addr *)host->h_addr));
    printf("no.such.name: %s\n", gethostbyname("no.such.name") ? "found" : hstrerror(h_errno));
    struct in_addr ip = {htonl(INADDR_LOOPBACK)};
    printf("127.0.0.1: %s\n", gethostbyaddr(&ip, sizeof(ip), AF_INET)->h_name);
    printf("::1: %s\n", gethostbyaddr(&in6addr_loopback, 16, AF_INET6)->h_name);
    ip.s_addr = htonl(0x0a000001);
    printf("10.0.0.1: %s\n", gethostbyaddr(&ip, sizeof(ip), AF_INET) ? "found" : hstrerror(h_errno));
    printf("https: %d\n", ntohs(getservbyname("https", "tcp")->s_port));
    printf("domain: %d/%s\n", ntohs(getservbyname("domain", "udp")->s_port), getservbyname("domain", "udp")->s_proto);
    printf("80, nothing, https/icmp: %d %d %d\n", getservbyname("80", NULL) != NULL,
           getservbyname("nothing", NULL) != NULL, getservbyname("https", "icmp") != NULL);
    printf("udp: %d\n", getprotobyname("udp")->p_proto);
    printf("smoke: %d\n", getprotobyname("smoke") != NULL);
    char name[16], tiny[4], text[4];
    printf("%d %s %d\n", gethostname(name, sizeof(name)), name, gethostname(tiny, sizeof(tiny)));
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(65535), .sin6_addr = in6addr_loopback};
    struct sockaddr *to = (struct sockaddr *)&address;
    printf("%s\n", gai_strerror(getnameinfo(to, sizeof(address), text, sizeof(text), NULL, 0, NI_NAMEREQD)));
    printf("%s\n", gai_strerror(getnameinfo(to, sizeof(address), NULL, 0, text, sizeof(text), 0)));
}

int main(void) {
    struct addrinfo any = {0}, stream = {.ai_socktype = SOCK_STREAM}, udp = {.ai_protocol = IPPROTO_UDP};
    resolve("localhost", "http", any);
    resolve("localhost", NULL, stream);
    resolve("10.1.2.3", "53", udp);
    resolve(NULL, "80", (struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE});
    resolve(NULL, "80", (struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_family = AF_INET6});
    resolve("::1", "1", (struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_flags = AI_CANONNAME});
    resolve("::1", "1", (struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_family = AF_INET});
    resolve("localhost", "1", (struct addrinfo){.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV});
    resolve("no.such.name", "1", any);
    resolve("localhost", "nothing", any);
    resolve(NULL, NULL, any);
    resolve("localhost", "1", (struct addrinfo){.ai_family = AF_UNIX});
    resolve("localhost", "1", (struct addrinfo){.ai_socktype = 9});
    resolve("localhost", "1", (struct addrinfo){.ai_socktype = SOCK_DGRAM, .ai_protocol = IPPROTO_TCP});
    resolve("localhost", "1", (struct addrinfo){.ai_flags = 0x400});
    older();
    return 0;
}
