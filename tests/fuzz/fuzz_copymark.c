/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "fuzzutil.h"

#include <string.h>

#include "copymark.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;
    VmrCopymark mark;
    VmrCopymark same;

    vmr_copymark_parse((const char *)data, size, &mark);
    g_assert_cmpuint(mark.state, <, VMR_COPYMARK_LAST);
    first = vmr_copymark_format(&mark);
    g_assert_true((first == NULL) == (mark.state == VMR_COPYMARK_NONE));
    if (!first)
        return 0;
    vmr_copymark_parse(first, strlen(first), &same);
    g_assert_cmpint(same.state, ==, mark.state);
    second = vmr_copymark_format(&same);
    g_assert_cmpstr(first, ==, second);
    return 0;
}
