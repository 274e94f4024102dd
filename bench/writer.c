/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* writer FILE SIZE LOG: what a guest does to the disk that it shares with a copy.
 *
 * Writes 4 KiB at a time, with O_DIRECT and O_DSYNC, at random places of FILE
 * (which it makes, SIZE bytes long), each after the other, as fast as they are
 * done, until its standard input ends. Then the start (CLOCK_MONOTONIC) and the
 * duration of each, in ns, are written to LOG, as pairs of 64 bits; and all that
 * was written is read again and compared. Says "ready" when it begins. */

#define _GNU_SOURCE 1

#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define MAX_WRITES (8 * 1024 * 1024)

typedef struct {
    uint64_t start;
    uint64_t took;
} Write;

static uint64_t
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Each block holds its place and the number of its write. */
static void
fill(uint64_t *block, uint64_t place, uint64_t number)
{
    for (size_t i = 0; i < BLOCK / sizeof(*block); i += 2) {
        block[i] = place;
        block[i + 1] = number;
    }
}

static int
make_file(const char *path, uint64_t blocks, uint64_t *buffer)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        err(1, "%s", path);
    for (uint64_t place = 0; place < blocks; place++) {
        fill(buffer, place, 0);
        if (write(fd, buffer, BLOCK) != BLOCK)
            err(1, "%s", path);
    }
    if (fsync(fd) < 0 || close(fd) < 0)
        err(1, "%s", path);
    fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

static int
input_has_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    return poll(&input, 1, 0) != 0;
}

static uint64_t
write_on(int fd, uint64_t blocks, uint64_t *buffer, Write *log, uint64_t *last)
{
    uint64_t state = 88172645463325252u;
    uint64_t n = 0;

    while (n < MAX_WRITES && !input_has_ended()) {
        uint64_t place;

        /* xorshift: the same places in every run */
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        place = state % blocks;
        fill(buffer, place, n + 1);
        log[n].start = now();
        if (pwrite(fd, buffer, BLOCK, (off_t)(place * BLOCK)) != BLOCK)
            err(1, "write %ju", (uintmax_t)n);
        log[n].took = now() - log[n].start;
        last[place] = ++n;
    }
    return n;
}

static void
check(int fd, uint64_t blocks, uint64_t *buffer, const uint64_t *last)
{
    for (uint64_t place = 0; place < blocks; place++) {
        if (pread(fd, buffer, BLOCK, (off_t)(place * BLOCK)) != BLOCK)
            err(1, "read %ju", (uintmax_t)place);
        for (size_t i = 0; i < BLOCK / sizeof(*buffer); i += 2) {
            if (buffer[i] != place || buffer[i + 1] != last[place])
                errx(1, "block %ju is not what was written",
                     (uintmax_t)place);
        }
    }
}

int
main(int argc, char **argv)
{
    uint64_t *buffer = aligned_alloc(BLOCK, BLOCK);
    Write *log = calloc(MAX_WRITES, sizeof(*log));
    uint64_t *last;
    uint64_t blocks;
    uint64_t n;
    FILE *file;
    int fd;

    if (argc != 4)
        errx(2, "usage: writer FILE SIZE LOG");
    blocks = strtoull(argv[2], NULL, 10) / BLOCK;
    last = calloc(blocks, sizeof(*last));
    if (buffer == NULL || log == NULL || last == NULL || blocks == 0)
        errx(1, "no memory, or no size");
    fd = make_file(argv[1], blocks, buffer);
    puts("ready");
    fflush(stdout);
    n = write_on(fd, blocks, buffer, log, last);
    file = fopen(argv[3], "wb");
    if (file == NULL || fwrite(log, sizeof(*log), n, file) != n ||
        fclose(file) != 0)
        err(1, "%s", argv[3]);
    check(fd, blocks, buffer, last);
    free(last);
    free(log);
    free(buffer);
    return 0;
}
