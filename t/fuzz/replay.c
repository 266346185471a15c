/* Calls a fuzz target with each file that the command line names. */
#include "fuzz.h"

/* The memory has the size of the file, so that a sanitizer sees an access beyond its end. */
static void replay(const char *name)
{
    FILE *in = fopen(name, "rb");
    uint8_t *data;
    long size;

    PROMISE(in && !fseek(in, 0, SEEK_END));
    size = ftell(in);
    rewind(in);
    data = malloc(size ? size : 1);
    PROMISE(data && fread(data, 1, size, in) == (size_t)size);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    fclose(in);
}

int main(int argc, char *argv[])
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    return 0;
}
