/*
 * Keeps the body of an answer in memory or in a temporary file (mod_pgpool_query_spool.h).
 */
#include "mod_pgpool_query_spool.h"

#include <stdlib.h>
#include <string.h>
#include <apr_file_io.h>
#include <apr_sha1.h>
#include <apr_strings.h>

/* The memory grows from the first size to the greatest.  A file is written in blocks. */
enum { MEMORY_FIRST = 8192, MEMORY_MOST = 1 << 20, FILE_BLOCK = 1 << 16 };

struct pgpool_spool {
    apr_pool_t *p;
    apr_off_t most;
    bool hashed;

    apr_off_t length;
    char *memory; /* all of the body, or what the file has not got yet */
    apr_size_t used, capacity;
    apr_file_t *file; /* NULL: the body is in memory */
    apr_sha1_ctx_t sha1;
    const char *error;
};

static apr_status_t memory_cleanup(void *data)
{
    pgpool_spool *spool = data;

    free(spool->memory);
    return APR_SUCCESS;
}

pgpool_spool *pgpool_spool_make(apr_pool_t *p, apr_off_t most, bool hashed)
{
    pgpool_spool *spool = apr_pcalloc(p, sizeof(*spool));

    spool->p = p;
    spool->most = most;
    spool->hashed = hashed;
    if (hashed)
        apr_sha1_init(&spool->sha1);
    apr_pool_cleanup_register(p, spool, memory_cleanup, apr_pool_cleanup_null);
    return spool;
}

static apr_status_t spool_fail(pgpool_spool *spool, const char *error)
{
    spool->error = error;
    return APR_EGENERAL;
}

static apr_status_t file_fail(pgpool_spool *spool, const char *step, apr_status_t rv)
{
    char words[128];

    return spool_fail(spool,
                      apr_psprintf(spool->p, "cannot %s a temporary file for the result: %s",
                                   step, apr_strerror(rv, words, sizeof words)));
}

static apr_status_t memory_resize(pgpool_spool *spool, apr_size_t capacity)
{
    char *memory = realloc(spool->memory, capacity);

    if (!memory)
        return spool_fail(spool, "no memory for the result");
    spool->memory = memory;
    spool->capacity = capacity;
    return APR_SUCCESS;
}

static apr_status_t file_open(pgpool_spool *spool)
{
    const char *directory;
    char *name;
    apr_status_t rv = apr_temp_dir_get(&directory, spool->p);

    if (rv != APR_SUCCESS)
        return file_fail(spool, "find a directory for", rv);
    name = apr_pstrcat(spool->p, directory, "/pgpool-XXXXXX", NULL);
    rv = apr_file_mktemp(&spool->file, name,
                         APR_FOPEN_CREATE | APR_FOPEN_READ | APR_FOPEN_WRITE | APR_FOPEN_EXCL |
                             APR_FOPEN_BINARY,
                         spool->p);
    if (rv != APR_SUCCESS)
        return file_fail(spool, apr_psprintf(spool->p, "open %s as", name), rv);
    apr_file_remove(name, spool->p);
    return APR_SUCCESS;
}

static apr_status_t file_append(pgpool_spool *spool)
{
    apr_status_t rv = apr_file_write_full(spool->file, spool->memory, spool->used, NULL);

    spool->used = 0;
    return rv == APR_SUCCESS ? rv : file_fail(spool, "write", rv);
}

/* Make room in memory: take more of it, or move its content to the file. */
static apr_status_t memory_make_room(pgpool_spool *spool)
{
    apr_status_t rv = APR_SUCCESS;

    if (!spool->capacity)
        return memory_resize(spool, MEMORY_FIRST);
    if (!spool->file && spool->capacity < MEMORY_MOST)
        return memory_resize(spool, spool->capacity * 2);
    if (!spool->file)
        rv = file_open(spool);
    if (rv == APR_SUCCESS)
        rv = file_append(spool);
    if (rv == APR_SUCCESS && spool->capacity > FILE_BLOCK)
        rv = memory_resize(spool, FILE_BLOCK);
    return rv;
}

apr_status_t pgpool_spool_write(pgpool_spool *spool, const char *data, apr_size_t length)
{
    if (spool->most && (apr_off_t)length > spool->most - spool->length)
        return spool_fail(
            spool, apr_psprintf(spool->p,
                                "the result is longer than PgPoolQueryMaxSize (%" APR_OFF_T_FMT
                                " bytes)",
                                spool->most));
    if (spool->hashed)
        apr_sha1_update_binary(&spool->sha1, (const unsigned char *)data, length);
    spool->length += length;
    while (length) {
        apr_size_t part = spool->capacity - spool->used;

        if (!part) {
            apr_status_t rv = memory_make_room(spool);

            if (rv != APR_SUCCESS)
                return rv;
            continue;
        }
        if (part > length)
            part = length;
        memcpy(spool->memory + spool->used, data, part);
        spool->used += part;
        data += part;
        length -= part;
    }
    return APR_SUCCESS;
}

apr_status_t pgpool_spool_finish(pgpool_spool *spool)
{
    apr_status_t rv;

    if (!spool->file)
        return APR_SUCCESS;
    rv = file_append(spool);
    free(spool->memory);
    spool->memory = NULL;
    return rv;
}

const char *pgpool_spool_error(const pgpool_spool *spool)
{
    return spool->error;
}

apr_off_t pgpool_spool_length(const pgpool_spool *spool)
{
    return spool->length;
}

const char *pgpool_spool_hash(pgpool_spool *spool)
{
    unsigned char digest[APR_SHA1_DIGESTSIZE];
    char *text = apr_palloc(spool->p, 2 * sizeof digest + 1);

    apr_sha1_final(digest, &spool->sha1);
    for (unsigned i = 0; i < sizeof digest; i++)
        apr_snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return text;
}

/* A pool bucket sends the memory without a copy.  The file is read in small pieces: to map it,
 * as httpd would, costs 4 MB of memory for each reader. */
void pgpool_spool_insert(pgpool_spool *spool, apr_bucket_brigade *brigade)
{
    apr_bucket_alloc_t *alloc = brigade->bucket_alloc;

    if (!spool->length)
        return;
    if (!spool->file) {
        APR_BRIGADE_INSERT_TAIL(
            brigade, apr_bucket_pool_create(spool->memory, spool->used, spool->p, alloc));
        return;
    }
    apr_brigade_insert_file(brigade, spool->file, 0, spool->length, spool->p);
    for (apr_bucket *b = APR_BRIGADE_FIRST(brigade); b != APR_BRIGADE_SENTINEL(brigade);
         b = APR_BUCKET_NEXT(b))
        if (APR_BUCKET_IS_FILE(b))
            apr_bucket_file_enable_mmap(b, 0);
}
