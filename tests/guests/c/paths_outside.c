// Asks whoever answers at the path that it is given, and then answers one caller of its own, all as files.
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static FILE *stream(int fd) {
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r+");
    if (!file) {
        perror("paths_outside");
        exit(1);
    }
    return file;
}

int main(int argc, char **argv) {
    char line[100] = "";
    FILE *far = stream(open(argc > 1 ? argv[1] : "", O_RDWR));
    fputs("hello\n", far);
    fflush(far);
    printf("%s", fgets(line, sizeof line, far) ? line : "nothing\n");
    fclose(far);

    int listener = open("/dev/listen/tcp/8080", O_RDONLY);
    puts("listening");
    fflush(stdout);
    // The number of the descriptor of who calls.
    memset(line, 0, sizeof line);
    if (read(listener, line, sizeof line - 1) <= 0)
        return 1;
    FILE *caller = stream(atoi(line));
    if (fgets(line, sizeof line, caller))
        fprintf(caller, "you said %s", line);
    fclose(caller);
    puts("served");
    return 0;
}
