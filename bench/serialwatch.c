/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* serialwatch FILE LOG: when does a guest report its writes?
 *
 * The guest of virmirror.testguest sends a byte to the serial port, which is the
 * file FILE, after each write to its disk. The time of each change of FILE
 * (CLOCK_MONOTONIC, ns, 64 bits) is written to LOG when standard input ends. Says
 * "ready" when it begins. */

#define _GNU_SOURCE 1

#include <err.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#define MAX_CHANGES (8 * 1024 * 1024)

static uint64_t
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Changes that are seen at once have one time: no write was waited for. */
static size_t
watch(int fd, uint64_t *log)
{
    struct pollfd polled[] = {{.fd = fd, .events = POLLIN},
                              {.fd = STDIN_FILENO, .events = POLLIN}};
    char events[64 * 1024];
    size_t n = 0;

    while (n < MAX_CHANGES) {
        if (poll(polled, 2, -1) < 0)
            err(1, "poll");
        if (polled[1].revents != 0)
            break;
        if (read(fd, events, sizeof(events)) < 0)
            err(1, "read");
        log[n++] = now();
    }
    return n;
}

int
main(int argc, char **argv)
{
    uint64_t *log = calloc(MAX_CHANGES, sizeof(*log));
    FILE *file;
    size_t n;
    int fd;

    if (argc != 3)
        errx(2, "usage: serialwatch FILE LOG");
    fd = inotify_init1(IN_CLOEXEC);
    if (log == NULL || fd < 0 || inotify_add_watch(fd, argv[1], IN_MODIFY) < 0)
        err(1, "%s", argv[1]);
    puts("ready");
    fflush(stdout);
    n = watch(fd, log);
    file = fopen(argv[2], "wb");
    if (file == NULL || fwrite(log, sizeof(*log), n, file) != n ||
        fclose(file) != 0)
        err(1, "%s", argv[2]);
    free(log);
    return 0;
}
