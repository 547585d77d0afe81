// The first version: addresses of 4 or 16 bytes, and no port of who sent.
#define VERSION 1
#include "sockets.h"
