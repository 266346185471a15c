/*
 * Common to the fuzz targets.  Each target defines one function that takes any input, and
 * aborts if a promise is broken.  In the ordinary suite (t/03-fuzz.t) replay.c calls it with
 * the seeds; t/fuzz/run links it with libFuzzer.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <apr_general.h>
#include <apr_strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROMISE(condition)                                                                     \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);            \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

/* An APR pool for one input; the caller destroys it. */
static inline apr_pool_t *fuzz_pool(void)
{
    static int initialized;
    apr_pool_t *p;

    if (!initialized++)
        PROMISE(apr_initialize() == APR_SUCCESS);
    PROMISE(apr_pool_create(&p, NULL) == APR_SUCCESS);
    return p;
}

#endif
