/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* meter RESULT COMMAND [ARGUMENT...]: run a command, and write to the file RESULT
 * what it took: seconds, user and system CPU seconds, peak memory in KiB, and
 * its status, all in one line.
 *
 * A small program of its own, since a process inherits the peak memory of the
 * one that it is forked from: measured from Python, cp would need 30 MiB. */

#define _GNU_SOURCE 1

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double
seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

int
main(int argc, char **argv)
{
    struct rusage usage;
    double start;
    double end;
    int status;
    pid_t pid;
    FILE *file;

    if (argc < 3) {
        fputs("usage: meter RESULT COMMAND [ARGUMENT...]\n", stderr);
        return 2;
    }
    start = now();
    pid = fork();
    if (pid == 0) {
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
        perror("meter");
        return 1;
    }
    end = now();
    file = fopen(argv[1], "w");
    if (file == NULL) {
        perror(argv[1]);
        return 1;
    }
    fprintf(file, "%.6f %.6f %.6f %ld %d\n", end - start,
            seconds(usage.ru_utime), seconds(usage.ru_stime), usage.ru_maxrss,
            status);
    return fclose(file) == 0 ? 0 : 1;
}
