/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A target with a bug, which the fuzzer must find: it proves that coverage
 * leads it (no random input has these four bytes in front) and that the
 * sanitizer sees one byte too much. */

#include "fuzzutil.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static volatile uint8_t sink;

    if (size >= 4 && data[0] == 'v' && data[1] == 'm' && data[2] == 'r' &&
        data[3] == '!')
        sink = data[size];
    (void)sink;
    return 0;
}
