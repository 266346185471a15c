/**
 * mod_pgpool_hostile: a handler for tests that plays an attacker who controls a child.
 *
 *     SetHandler pgpool-hostile
 *     GET /hostile?fill=0        fills the shared memory with words: 0, 1, -1, most, random
 *     GET /hostile?locks         takes every lock that is free
 *     GET /hostile?cut           tries to grow and write the file of locks, and to unseal it
 *
 * It uses system calls, and none of mod_pgpool's functions.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <httpd.h>
#include <http_config.h>
#include <http_protocol.h>

#define MEMORY "mod_pgpool-board"
#define LOCKS "mod_pgpool-locks"

static int memory_find(uint64_t **words, size_t *count)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long begin, end;
    char line[512];

    *count = 0;
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, MEMORY) && sscanf(line, "%lx-%lx", &begin, &end) == 2) {
            *words = (uint64_t *)begin;
            *count = (end - begin) / sizeof(**words);
        }
    if (maps)
        fclose(maps);
    return *count > 0;
}

static uint64_t word_of(const char *how)
{
    if (!strcmp(how, "random"))
        return (uint64_t)rand() << 42 ^ (uint64_t)rand() << 21 ^ (uint64_t)rand();
    if (!strcmp(how, "most"))
        return UINT64_C(0x7fffffff7fffffff);
    if (!strcmp(how, "least"))
        return UINT64_C(0x8000000000000000);
    return !strcmp(how, "1") ? UINT64_C(0x100000001) : !strcmp(how, "-1") ? UINT64_MAX : 0;
}

/* Other threads and processes write there at the same time, which is no race to report. */
__attribute__((no_sanitize("thread"))) static int fill(request_rec *r, const char *how)
{
    volatile uint64_t *words;
    size_t count, i;

    if (!memory_find((uint64_t **)&words, &count))
        return HTTP_NOT_FOUND;
    for (i = 0; i < count; i++)
        words[i] = word_of(how);
    ap_rprintf(r, "filled=%zu\n", count);
    return OK;
}

/* The descriptor of the file of locks, which this process has inherited; -1: none. */
static int locks_find(void)
{
    char path[64], target[256];
    int fd;

    for (fd = 3; fd < 1024; fd++) {
        ssize_t length;

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        length = readlink(path, target, sizeof target - 1);
        if (length > 0 && memmem(target, length, LOCKS, strlen(LOCKS)))
            return fd;
    }
    return -1;
}

static int take_locks(request_rec *r)
{
    const int fd = locks_find();
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int taken = 0, byte;

    for (byte = 0; byte < 2000; byte++) {
        lock.l_start = byte;
        lock.l_len = 1;
        taken += fcntl(fd, F_SETLK, &lock) == 0;
    }
    ap_rprintf(r, "taken=%d\n", taken);
    return fd < 0 ? HTTP_NOT_FOUND : OK;
}

static void attempt(request_rec *r, const char *what, int rc)
{
    ap_rprintf(r, "%s=%s\n", what, rc < 0 ? strerror(errno) : "done");
}

static int cut(request_rec *r)
{
    const int fd = locks_find();

    if (fd < 0)
        return HTTP_NOT_FOUND;
    attempt(r, "grow", ftruncate(fd, 1 << 30));
    attempt(r, "write", write(fd, "x", 1));
    attempt(r, "unseal", fcntl(fd, F_ADD_SEALS, 0));
    return OK;
}

static int handler(request_rec *r)
{
    const char *args = r->args ? r->args : "";

    if (strcmp(r->handler, "pgpool-hostile"))
        return DECLINED;
    ap_set_content_type(r, "text/plain");
    ap_rprintf(r, "pid=%d\n", getpid());
    if (!strncmp(args, "fill=", 5))
        return fill(r, args + 5);
    if (!strcmp(args, "locks"))
        return take_locks(r);
    return !strcmp(args, "cut") ? cut(r) : HTTP_BAD_REQUEST;
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_MIDDLE);
}

__attribute__((visibility("default"))) AP_DECLARE_MODULE(pgpool_hostile) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
