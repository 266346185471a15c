#include "pgp_board.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <apr_strings.h>

#define CACHE_LINE 64

/* A pgp_stats as the words that it is copied by. */
#define WORDS (sizeof(pgp_stats) / sizeof(apr_uint64_t))
_Static_assert(sizeof(pgp_stats) % sizeof(apr_uint64_t) == 0, "whole words");

/* One child's view of one pool. */
typedef struct {
    _Alignas(CACHE_LINE) _Atomic int permits;
    _Atomic int lacking, demand;
    _Atomic unsigned version; /* odd: being written */
    _Atomic apr_uint64_t words[WORDS];
} cell;

typedef struct {
    _Alignas(CACHE_LINE) pthread_mutex_t life; /* robust: held while the child lives */
    _Atomic int pid;
    _Atomic apr_int64_t died_at; /* 0: it lives */
} slot;

typedef struct {
    _Alignas(CACHE_LINE) char name[PGP_BOARD_NAME];
    apr_uint64_t server; /* of its connection string */
    _Atomic int told;    /* pgp_board_first() */
    _Atomic apr_uint64_t dead[PGP_COUNTERS];
    _Atomic apr_int64_t dead_wait, dead_hold; /* the longest of theirs */
} board_pool;

struct pgp_board {
    int nslots, max_pools;
    _Atomic int npools;
    _Atomic unsigned burials_begun, burials_ended;
    slot *slots; /* the addresses are the same in all children: they are forked */
    board_pool *pools;
    cell *cells; /* [slot][pool] */
};

static apr_size_t rounded(apr_size_t size)
{
    return (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static cell *cell_of(const pgp_board *board, int s, int pool)
{
    return &board->cells[s * board->max_pools + pool];
}

/* --- the parent ------------------------------------------------------------- */

apr_size_t pgp_board_size(int slots, int pools)
{
    return rounded(sizeof(pgp_board)) + slots * sizeof(slot) + pools * sizeof(board_pool) +
           (apr_size_t)slots * pools * sizeof(cell) + CACHE_LINE;
}

static int life_init(pthread_mutex_t *life)
{
    pthread_mutexattr_t attr;
    int failed;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    failed = pthread_mutex_init(life, &attr);
    pthread_mutexattr_destroy(&attr);
    return failed;
}

apr_status_t pgp_board_init(pgp_board **made, void *mem, int slots, int pools)
{
    char *at = (char *)rounded((apr_size_t)mem);
    pgp_board *board = (pgp_board *)at;
    int i, failed = 0;

    board->nslots = slots;
    board->max_pools = pools;
    at += rounded(sizeof(*board));
    board->slots = (slot *)at;
    at += slots * sizeof(slot);
    board->pools = (board_pool *)at;
    at += pools * sizeof(board_pool);
    board->cells = (cell *)at;
    for (i = 0; i < slots && !failed; i++)
        failed = life_init(&board->slots[i].life);
    *made = board;
    return failed;
}

/* FNV-1a: connection strings have no place in shared memory. */
static apr_uint64_t hash(const char *text)
{
    apr_uint64_t h = APR_UINT64_C(14695981039346656037);

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * APR_UINT64_C(1099511628211);
    return h;
}

int pgp_board_pool(pgp_board *board, const char *name, const char *conninfo, int nth)
{
    const apr_uint64_t server = hash(conninfo) + nth;
    const int n = atomic_load(&board->npools);
    int i;

    for (i = 0; i < n; i++)
        if (board->pools[i].server == server && !strcmp(board->pools[i].name, name))
            return i;
    if (n == board->max_pools)
        return -1;
    apr_cpystrn(board->pools[n].name, name, PGP_BOARD_NAME);
    board->pools[n].server = server;
    atomic_store(&board->npools, n + 1);
    return n;
}

/* --- cells ------------------------------------------------------------------ */

/* Each step is ordered after the one before it: release on this side, acquire on the
 * other. */
static void cell_write(cell *c, const pgp_stats *stats)
{
    apr_uint64_t words[WORDS];
    unsigned i;

    memcpy(words, stats, sizeof words);
    atomic_fetch_add(&c->version, 1);
    for (i = 0; i < WORDS; i++)
        atomic_store_explicit(&c->words[i], words[i], memory_order_release);
    atomic_fetch_add(&c->version, 1);
}

/* A writer that died or lost its processor in the middle leaves an odd version.  What
 * is read then is a mixture, but no number in it is torn, no counter less than before,
 * and no text without an end. */
static void cell_read(const cell *c, pgp_stats *stats)
{
    apr_uint64_t words[WORDS];
    unsigned before, tries, i;

    for (tries = 0; tries < 1000; tries++) {
        before = atomic_load(&c->version);
        for (i = 0; i < WORDS; i++)
            words[i] = atomic_load_explicit(&c->words[i], memory_order_acquire);
        if (!(before & 1) && before == atomic_load(&c->version))
            break;
    }
    memcpy(stats, words, sizeof words);
}

/* --- life and death --------------------------------------------------------- */

static int counts(const slot *s, apr_time_t now)
{
    const apr_int64_t died_at = atomic_load(&s->died_at);

    return atomic_load(&s->pid) && (!died_at || now < died_at + PGP_BOARD_GRACE);
}

static void raise_to(_Atomic apr_int64_t *most, apr_int64_t value)
{
    apr_int64_t before = atomic_load(most);

    while (before < value && !atomic_compare_exchange_weak(most, &before, value))
        ;
}

static void remember(board_pool *pool, const pgp_stats *stats)
{
    int i;

    for (i = 0; i < PGP_COUNTERS; i++)
        atomic_fetch_add(&pool->dead[i], stats->n[i]);
    raise_to(&pool->dead_wait, stats->longest_wait);
    raise_to(&pool->dead_hold, stats->longest_hold);
}

/* With the slot's mutex held. */
static void bury(pgp_board *board, int s, apr_time_t now)
{
    static const pgp_stats nothing;
    pgp_stats stats;
    int pool;

    atomic_fetch_add(&board->burials_begun, 1);
    for (pool = 0; pool < atomic_load(&board->npools); pool++) {
        cell *c = cell_of(board, s, pool);

        cell_read(c, &stats);
        remember(&board->pools[pool], &stats);
        cell_write(c, &nothing);
        atomic_store(&c->version, 0);
        atomic_store(&c->lacking, 0);
        atomic_store(&c->demand, 0);
    }
    atomic_store(&board->slots[s].died_at, now);
    atomic_fetch_add(&board->burials_ended, 1);
}

/* Returns 1 with the mutex of a slot whose child is dead or gone, 0 if it lives. */
static int enter(pgp_board *board, int s, apr_time_t now)
{
    slot *at = &board->slots[s];
    const int got = pthread_mutex_trylock(&at->life);

    if (got == EOWNERDEAD) {
        pthread_mutex_consistent(&at->life);
        bury(board, s, now);
    }
    return got == 0 || got == EOWNERDEAD;
}

int pgp_board_claim(pgp_board *board, int pid, apr_time_t now)
{
    int s, pool;

    for (s = 0; s < board->nslots; s++) {
        if (!enter(board, s, now))
            continue;
        if (counts(&board->slots[s], now)) {
            pthread_mutex_unlock(&board->slots[s].life);
            continue;
        }
        for (pool = 0; pool < board->max_pools; pool++)
            atomic_store(&cell_of(board, s, pool)->permits, 0);
        atomic_store(&board->slots[s].died_at, 0);
        atomic_store(&board->slots[s].pid, pid);
        return s;
    }
    return -1;
}

void pgp_board_leave(pgp_board *board, int s, apr_time_t now)
{
    bury(board, s, now);
    pthread_mutex_unlock(&board->slots[s].life);
}

void pgp_board_reap(pgp_board *board, apr_time_t now)
{
    int s;

    for (s = 0; s < board->nslots; s++)
        if (atomic_load(&board->slots[s].pid) && !atomic_load(&board->slots[s].died_at) &&
            enter(board, s, now))
            pthread_mutex_unlock(&board->slots[s].life);
}

/* --- permits ---------------------------------------------------------------- */

static int used(const pgp_board *board, int pool, apr_time_t now)
{
    int s, sum = 0;

    for (s = 0; s < board->nslots; s++)
        if (counts(&board->slots[s], now))
            sum += atomic_load(&cell_of(board, s, pool)->permits);
    return sum;
}

int pgp_board_take(pgp_board *board, int s, int pool, int total, apr_time_t now)
{
    atomic_fetch_add(&cell_of(board, s, pool)->permits, 1);
    if (!total || used(board, pool, now) <= total)
        return 1;
    pgp_board_give(board, s, pool);
    return 0;
}

void pgp_board_give(pgp_board *board, int s, int pool)
{
    atomic_fetch_sub(&cell_of(board, s, pool)->permits, 1);
}

int pgp_board_first(pgp_board *board, int pool)
{
    return atomic_exchange(&board->pools[pool].told, 1) == 0;
}

void pgp_board_want(pgp_board *board, int s, int pool, int lacking, int demand)
{
    cell *c = cell_of(board, s, pool);

    atomic_store(&c->lacking, lacking);
    atomic_store(&c->demand, demand);
}

static int demand_of_all(const pgp_board *board, int pool, apr_time_t now)
{
    int s, sum = 0;

    for (s = 0; s < board->nslots; s++)
        if (counts(&board->slots[s], now))
            sum += atomic_load(&cell_of(board, s, pool)->demand);
    return sum;
}

/* How many permits a child has beyond its part of those that there are. */
static double surplus(const cell *c, int total, int demand)
{
    const double fair = demand ? (double)total * atomic_load(&c->demand) / demand : 0;

    return atomic_load(&c->permits) - fair;
}

void pgp_board_standing(const pgp_board *board, int mine, int pool, int total, apr_time_t now,
                        pgp_standing *standing)
{
    const int demand = demand_of_all(board, pool, now);
    const cell *own = cell_of(board, mine, pool);
    int s;

    *standing = (pgp_standing){.mine = atomic_load(&own->permits),
                               .used = used(board, pool, now),
                               .surplus = surplus(own, total, demand)};
    for (s = 0; s < board->nslots; s++) {
        const cell *c = cell_of(board, s, pool);
        const int lacking = atomic_load(&c->lacking);

        if (s == mine || !lacking || !counts(&board->slots[s], now))
            continue;
        if (!standing->lacking || -surplus(c, total, demand) > standing->shortfall)
            standing->shortfall = -surplus(c, total, demand);
        standing->lacking += lacking;
        standing->without += !atomic_load(&c->permits);
    }
}

/* --- figures ---------------------------------------------------------------- */

void pgp_board_publish(pgp_board *board, int s, int pool, const pgp_stats *stats)
{
    cell_write(cell_of(board, s, pool), stats);
}

void pgp_board_read(const pgp_board *board, int s, int pool, pgp_stats *stats)
{
    int i;

    if (s >= 0) {
        cell_read(cell_of(board, s, pool), stats);
        return;
    }
    memset(stats, 0, sizeof *stats);
    for (i = 0; i < PGP_COUNTERS; i++)
        stats->n[i] = atomic_load(&board->pools[pool].dead[i]);
    stats->longest_wait = atomic_load(&board->pools[pool].dead_wait);
    stats->longest_hold = atomic_load(&board->pools[pool].dead_hold);
}

int pgp_board_slots(const pgp_board *board)
{
    return board->nslots;
}

int pgp_board_pools(const pgp_board *board)
{
    return atomic_load(&board->npools);
}

unsigned pgp_board_burials_begun(const pgp_board *board)
{
    return atomic_load(&board->burials_begun);
}

unsigned pgp_board_burials_ended(const pgp_board *board)
{
    return atomic_load(&board->burials_ended);
}

const char *pgp_board_pool_name(const pgp_board *board, int pool)
{
    return board->pools[pool].name;
}

int pgp_board_pid(const pgp_board *board, int s, apr_time_t now)
{
    return atomic_load(&board->slots[s].died_at) || !counts(&board->slots[s], now)
               ? 0
               : atomic_load(&board->slots[s].pid);
}
