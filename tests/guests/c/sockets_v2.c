// The second version: addresses of 128 bytes that begin with their family.
#define VERSION 2
#include "sockets.h"
