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
    int place;

    for (place = 0; place < board->nplaces; place++) {
        const pgp_place *at = &board->places[place];

        if (at->tenure && at->server == server && at->nth == pool->nth &&
            !strcmp(at->name, pool->name))
            return place;
    }
    return -1;
}

int pgp_board_place(const pgp_board *board, const pgp_board_pool *pool)
{
    const int place = place_find(board, pool);

    return place >= 0 && board->places[place].current ? place : -1;
}

/* Whether a place is taken.  A place of the last configuration counts as taken, because a new
 * child of that configuration may not hold its locks yet. */
static bool is_taken(const pgp_board *board, int place)
{
    const pgp_place *at = &board->places[place];

    return at->current || at->before ||
           (at->tenure &&
            board->locks.holder(board->locks.baton, pgp_board_place_byte(board, place)));
}

static bool is_host_in_use(const pgp_board *board, int h)
{
    int place;

    for (place = 0; place < board->nplaces; place++)
        if (board->places[place].tenure && board->places[place].host == h &&
            is_taken(board, place))
            return true;
    return false;
}

/* The number of a pool's server.  There are as many numbers as places, so one should be free.
 * But a process may take a place's lock at any moment; if none is free, the last is shared. */
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
    int place;

    for (place = 0; place < board->nplaces; place++) {
        pgp_place *at = &board->places[place];

        if ((free && at->tenure >= free->tenure) || is_taken(board, place))
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

/* Keep the place of a pool of the new configuration.  If the place was not taken meanwhile, its
 * server's number may have been given away, so the pool asks for a number again. */
static void place_keep(pgp_board *board, pgp_place *at, const pgp_board_pool *pool)
{
    if (!is_taken(board, (int)(at - board->places)))
        at->host = host_number(board, pool);
    at->current = true;
}

int pgp_board_configure(pgp_board *board, const pgp_board_pool *pools, int n)
{
    int i, place, without = 0;

    for (place = 0; place < board->nplaces; place++) {
        board->places[place].before = board->places[place].current;
        board->places[place].current = false;
    }
    for (i = 0; i < n; i++)
        if ((place = place_find(board, &pools[i])) >= 0)
            place_keep(board, &board->places[place], &pools[i]);
    for (i = 0; i < n; i++)
        if (pgp_board_place(board, &pools[i]) < 0)
            without += !place_give(board, &pools[i]);
    return without;
}
