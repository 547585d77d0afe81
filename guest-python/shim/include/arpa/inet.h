/* wasi-libc's header, and the one function of it that names.c adds. */
#ifndef TIMECRAFT_ARPA_INET_H
#define TIMECRAFT_ARPA_INET_H

#include_next <arpa/inet.h>

#ifdef __cplusplus
extern "C" {
#endif

char *inet_ntoa(struct in_addr);

#ifdef __cplusplus
}
#endif

#endif
