/* Memory that one owner frees with free(). */

#include "pgp_alloc.h"

#include <stdlib.h>

void *pgp_alloc(size_t size)
{
    void *memory = calloc(1, size);

    if (!memory)
        abort();
    return memory;
}
