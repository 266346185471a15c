/* Gives places to the pools of a configuration, and numbers to their servers (pgp_board.h). */
#include "pgp_board_private.h"

#include <string.h>
#include <apr_strings.h>

/* FNV-1a */
static apr_uint64_t hash(const char *text)
{
    apr_uint64_t h = APR_UINT64_C(14695981039346656037);

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * APR_UINT64_C(1099511628211);
    return h;
}

static int place_find(const pgp_board *board, const pgp_board_pool *pool)
{
    const apr_uint64_t server = hash(pool->server);
    int p;

    for (p = 0; p < board->nplaces; p++) {
        const pgp_place *at = &board->places[p];

        if (at->tenure && at->server == server && at->nth == pool->nth &&
            !strcmp(at->name, pool->name))
            return p;
    }
    return -1;
}

int pgp_board_place(const pgp_board *board, const pgp_board_pool *pool)
{
    const int p = place_find(board, pool);

    return p >= 0 && board->places[p].current ? p : -1;
}

/* Whether a place is taken.  A place of the last configuration counts as taken, because a new
 * child of that configuration may not hold its locks yet. */
static bool is_taken(const pgp_board *board, int p)
{
    const pgp_place *at = &board->places[p];

    return at->current || at->before ||
           (at->tenure &&
            board->locks.holder(board->locks.baton, pgp_board_place_byte(board, p)));
}

static bool is_host_in_use(const pgp_board *board, int h)
{
    int p;

    for (p = 0; p < board->nplaces; p++)
        if (board->places[p].tenure && board->places[p].host == h && is_taken(board, p))
            return true;
    return false;
}

/* The number of a pool's server.  There are as many as places, so one is free; but a process
 * may take a place's lock at any moment, so the bound does not rest on that. */
static int host_number(pgp_board *board, const pgp_board_pool *pool)
{
    const apr_uint64_t wanted = hash(pool->host ? pool->host : pool->server);
    int h;

    for (h = 0; h < board->nplaces; h++)
        if (board->hosts[h] == wanted)
            return h;
    for (h = 0; h < board->nplaces - 1 && board->hosts[h] && is_host_in_use(board, h);)
        h++;
    board->hosts[h] = wanted;
    return h;
}

/* A place for a new pool: one that no pool ever had, or else the one that was left first. */
static pgp_place *place_free(pgp_board *board)
{
    pgp_place *free = NULL;
    int p;

    for (p = 0; p < board->nplaces; p++) {
        pgp_place *at = &board->places[p];

        if ((free && at->tenure >= free->tenure) || is_taken(board, p))
            continue;
        free = at;
    }
    return free;
}

static bool place_give(pgp_board *board, const pgp_board_pool *pool)
{
    pgp_place *at = place_free(board);

    if (!at)
        return false;
    apr_cpystrn(at->name, pool->name, sizeof at->name);
    at->server = hash(pool->server);
    at->nth = pool->nth;
    at->host = host_number(board, pool);
    at->tenure = ++board->tenures;
    at->current = true;
    return true;
}

/* A pool that comes back to its place finds its server's number again, or gets another one if
 * that is given away. */
static void place_keep(pgp_board *board, pgp_place *at, const pgp_board_pool *pool)
{
    if (!is_taken(board, (int)(at - board->places)))
        at->host = host_number(board, pool);
    at->current = true;
}

int pgp_board_configure(pgp_board *board, const pgp_board_pool *pools, int n)
{
    int i, p, without = 0;

    for (p = 0; p < board->nplaces; p++) {
        board->places[p].before = board->places[p].current;
        board->places[p].current = false;
    }
    for (i = 0; i < n; i++)
        if ((p = place_find(board, &pools[i])) >= 0)
            place_keep(board, &board->places[p], &pools[i]);
    for (i = 0; i < n; i++)
        if (pgp_board_place(board, &pools[i]) < 0)
            without += !place_give(board, &pools[i]);
    return without;
}
