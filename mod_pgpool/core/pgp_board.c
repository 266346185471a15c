/* Makes the board, gives seats and places, and keeps figures and totals (pgp_board.h). */
#include "pgp_board_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <apr_strings.h>

/* A pgp_stats is copied word by word. */
#define WORDS (sizeof(pgp_stats) / sizeof(apr_uint64_t))
_Static_assert(sizeof(pgp_stats) % sizeof(apr_uint64_t) == 0, "whole words");

/* --- shared memory: written by any child, believed by none ------------------- */

/* A child's figures of one pool.  A cell in which no child has published is never touched, and
 * so costs no memory. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic unsigned version; /* odd: being written */
    _Atomic apr_uint64_t words[WORDS];
} cell;

typedef struct {
    _Atomic unsigned incarnation; /* how often the seat was claimed */
    _Atomic int in_use;           /* its figures are not in the totals yet */
    _Atomic apr_int64_t ended_at; /* 0: the seat was never used, or is in use */
} seat;

/* A copy of one pool's totals. */
typedef struct {
    _Atomic unsigned tenure; /* of these figures; 0: there are none */
    _Atomic apr_uint64_t n[PGP_COUNTERS];
    _Atomic apr_int64_t longest[PGP_TIMES];
} totals;

/* The gates of a pool, common to all children. */
typedef struct {
    _Atomic unsigned tenure;
    pgp_gate gates[PGP_GATES];
} notice;

/* An operator's orders for a pool. */
typedef struct {
    _Atomic unsigned tenure;
    _Atomic apr_int64_t suspended_until, reconnect_before;
} orders;

typedef struct {
    _Alignas(
        PGP_CACHE_LINE) _Atomic unsigned flips; /* copy flips % 2 of the totals is current */
    _Atomic apr_uint64_t folded[2];             /* the last child in each copy */
    _Atomic apr_int64_t reaped_at;
    _Atomic int top; /* no seat of this number or above was ever claimed */
} head;

/* --- private memory --------------------------------------------------------- */

typedef struct {
    char name[64];
    apr_uint64_t server; /* hash of the connection string, which has no room here */
    int nth;
    int host;            /* index of its server in the board's hosts */
    unsigned tenure;     /* 0: no pool ever had this place */
    int current, before; /* the newest configuration, or the one before, has its pool */
} place;

struct pgp_board {
    int nseats, nplaces;
    pgp_locks locks;
    unsigned tenures; /* given so far */
    place *places;
    apr_uint64_t *hosts; /* [place] hashes of the servers' hosts and ports; 0: free */
    pgp_bells bells;
    apr_time_t *times; /* [seat] for the keeper's use */

    /* shared */
    head *head;
    seat *seats;
    totals *copies[2];       /* [place] */
    orders *orders;          /* [place] */
    notice *notices;         /* [place], and one more for PGP_NO_PLACE */
    pgp_standing *standings; /* [place and then host][seat] */
    pgp_turn *turns;         /* [place and then host] */
    cell *cells;             /* [seat][place] */
};

pgp_standing *pgp_board_standing(const pgp_board *board, int s, int row)
{
    return &board->standings[(apr_size_t)row * board->nseats + s];
}

pgp_turn *pgp_board_turn(const pgp_board *board, int row)
{
    return &board->turns[row];
}

apr_time_t *pgp_board_times(const pgp_board *board)
{
    return board->times;
}

int pgp_board_top(const pgp_board *board)
{
    const int top = atomic_load(&board->head->top);

    return top < 0 ? 0 : top > board->nseats ? board->nseats : top;
}

int pgp_board_pool_row(const pgp_board *board, int p)
{
    return p;
}

int pgp_board_server_row(const pgp_board *board, int p)
{
    return board->nplaces + board->places[p].host;
}

static cell *cell_of(const pgp_board *board, int s, int p)
{
    return &board->cells[(apr_size_t)s * board->nplaces + p];
}

static int undertaker_byte(const pgp_board *board)
{
    return board->nseats;
}

static int place_byte(const pgp_board *board, int p)
{
    return board->nseats + 1 + p;
}

/* --- the parent ------------------------------------------------------------- */

int pgp_board_seats_for(int children)
{
    const int spare = children < 1024 / 3 ? 3 * children : 1024;

    return children + (spare < 256 ? 256 : spare);
}

int pgp_board_locks(int seats, int places)
{
    return seats + 1 + places;
}

apr_size_t pgp_board_layout(void)
{
    return sizeof(pgp_board) * 31 + sizeof(place) * 37 + sizeof(seat) * 41 +
           sizeof(totals) * 43 + sizeof(notice) * 47 + sizeof(pgp_standing) * 53 +
           sizeof(cell) * 59 + sizeof(head) * 61 + sizeof(pgp_turn) * 67 + sizeof(orders) * 71;
}

/* The next part of the mapping, of this size; *used grows by it.  base NULL: only count. */
static void *part_next(char *base, apr_size_t *used, apr_size_t size)
{
    void *part = base ? base + *used : NULL;

    *used += (size + PGP_CACHE_LINE - 1) / PGP_CACHE_LINE * PGP_CACHE_LINE;
    return part;
}

static apr_size_t parts_set(pgp_board *board, char *base)
{
    const apr_size_t seats = board->nseats, places = board->nplaces;
    apr_size_t used = 0;

    board->head = part_next(base, &used, sizeof(head));
    board->seats = part_next(base, &used, seats * sizeof(seat));
    board->copies[0] = part_next(base, &used, places * sizeof(totals));
    board->copies[1] = part_next(base, &used, places * sizeof(totals));
    board->orders = part_next(base, &used, places * sizeof(orders));
    board->notices = part_next(base, &used, (places + 1) * sizeof(notice));
    board->standings = part_next(base, &used, 2 * places * seats * sizeof(pgp_standing));
    board->turns = part_next(base, &used, 2 * places * sizeof(pgp_turn));
    board->cells = part_next(base, &used, seats * places * sizeof(cell));
    return used;
}

/* The memory is a sealed file with a name, so that an operator sees in /proc/PID/maps what
 * it is, and no child can cut it off under the feet of the parent.  It costs what is used. */
static apr_status_t memory_map(char **base, apr_size_t size)
{
    const int fd = memfd_create("mod_pgpool-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    apr_status_t rv = APR_SUCCESS;

    if (fd < 0)
        return errno;
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        rv = errno;
    *base = rv ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!rv && *base == MAP_FAILED)
        rv = errno;
    close(fd);
    return rv;
}

apr_status_t pgp_board_create(pgp_board **made, apr_pool_t *p, int seats, int places,
                              const pgp_locks *locks)
{
    pgp_board *board = apr_pcalloc(p, sizeof(*board));
    apr_status_t rv;
    char *base;

    board->nseats = seats;
    board->nplaces = places;
    board->locks = *locks;
    board->places = apr_pcalloc(p, places * sizeof(*board->places));
    board->hosts = apr_pcalloc(p, places * sizeof(*board->hosts));
    board->times = apr_pcalloc(p, seats * sizeof(*board->times));
    rv = memory_map(&base, parts_set(board, NULL));
    if (rv != APR_SUCCESS)
        return rv;
    parts_set(board, base);
    *made = board;
    return APR_SUCCESS;
}

void pgp_board_hang_bells(pgp_board *board, const pgp_bells *bells)
{
    board->bells = *bells;
}

void pgp_board_ring(const pgp_board *board, int s)
{
    if (board->bells.baton)
        board->bells.ring(board->bells.baton, s);
}

int pgp_board_bell(const pgp_board *board, int s)
{
    return board->bells.baton ? board->bells.fd(board->bells.baton, s) : -1;
}

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
        const place *at = &board->places[p];

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
static int is_tenanted(const pgp_board *board, int p)
{
    const place *at = &board->places[p];

    return at->current || at->before ||
           (at->tenure && board->locks.holder(board->locks.baton, place_byte(board, p)));
}

static int is_host_in_use(const pgp_board *board, int h)
{
    int p;

    for (p = 0; p < board->nplaces; p++)
        if (board->places[p].tenure && board->places[p].host == h && is_tenanted(board, p))
            return 1;
    return 0;
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
static place *place_free(pgp_board *board)
{
    place *free = NULL;
    int p;

    for (p = 0; p < board->nplaces; p++) {
        place *at = &board->places[p];

        if ((free && at->tenure >= free->tenure) || is_tenanted(board, p))
            continue;
        free = at;
    }
    return free;
}

static int place_give(pgp_board *board, const pgp_board_pool *pool)
{
    place *at = place_free(board);

    if (!at)
        return 0;
    apr_cpystrn(at->name, pool->name, sizeof at->name);
    at->server = hash(pool->server);
    at->nth = pool->nth;
    at->host = host_number(board, pool);
    at->tenure = ++board->tenures;
    at->current = 1;
    return 1;
}

/* A pool that comes back to its place finds its server's number again, or gets another one if
 * that is given away. */
static void place_keep(pgp_board *board, place *at, const pgp_board_pool *pool)
{
    if (!is_tenanted(board, (int)(at - board->places)))
        at->host = host_number(board, pool);
    at->current = 1;
}

int pgp_board_configure(pgp_board *board, const pgp_board_pool *pools, int n)
{
    int i, p, without = 0;

    for (p = 0; p < board->nplaces; p++) {
        board->places[p].before = board->places[p].current;
        board->places[p].current = 0;
    }
    for (i = 0; i < n; i++)
        if ((p = place_find(board, &pools[i])) >= 0)
            place_keep(board, &board->places[p], &pools[i]);
    for (i = 0; i < n; i++)
        if (pgp_board_place(board, &pools[i]) < 0)
            without += !place_give(board, &pools[i]);
    return without;
}

/* --- cells ------------------------------------------------------------------ */

static int is_zero(const pgp_stats *stats)
{
    static const pgp_stats nothing;

    return !memcmp(stats, &nothing, sizeof nothing);
}

/* Memory order keeps the steps in sequence: release here, acquire in cell_read().  A cell has
 * one writer; afterwards the version is even, whatever it was before. */
static void cell_write(cell *c, const pgp_stats *stats)
{
    const unsigned version = atomic_load(&c->version) | 1;
    apr_uint64_t words[WORDS];
    unsigned i;

    memcpy(words, stats, sizeof words);
    atomic_store(&c->version, version);
    for (i = 0; i < WORDS; i++)
        atomic_store_explicit(&c->words[i], words[i], memory_order_release);
    atomic_store(&c->version, version + 1);
}

/* A writer that died or lost its processor in the middle leaves an odd version.  Then the copy
 * is a mixture of old and new figures, but no number is torn and no counter goes back. */
static void cell_read(const cell *c, apr_time_t now, pgp_stats *stats)
{
    apr_uint64_t words[WORDS];
    unsigned before, tries, i;

    for (tries = 0; tries < 100; tries++) {
        before = atomic_load(&c->version);
        for (i = 0; i < WORDS; i++)
            words[i] = atomic_load_explicit(&c->words[i], memory_order_acquire);
        if (!(before & 1) && before == atomic_load(&c->version))
            break;
    }
    memcpy(stats, words, sizeof words);
    pgp_stats_confine(stats, now);
}

void pgp_board_publish(pgp_board *board, int s, int p, const pgp_stats *stats)
{
    pgp_standing *st = pgp_board_standing(board, s, p);
    const unsigned tenure = board->places[p].tenure;

    if (atomic_load(&st->tenure) != tenure && is_zero(stats))
        return;
    cell_write(cell_of(board, s, p), stats);
    atomic_store(&st->tenure, tenure);
}

/* --- totals ----------------------------------------------------------------- */

static void totals_read(const totals *t, pgp_stats *stats)
{
    int i;

    memset(stats, 0, sizeof *stats);
    for (i = 0; i < PGP_COUNTERS; i++)
        stats->n[i] = atomic_load_explicit(&t->n[i], memory_order_acquire);
    for (i = 0; i < PGP_TIMES; i++)
        stats->longest[i] = atomic_load(&t->longest[i]);
    pgp_stats_confine(stats, 0);
}

static void totals_write(totals *t, const pgp_stats *stats, unsigned tenure)
{
    int i;

    for (i = 0; i < PGP_COUNTERS; i++)
        atomic_store_explicit(&t->n[i], stats->n[i], memory_order_release);
    for (i = 0; i < PGP_TIMES; i++)
        atomic_store(&t->longest[i], stats->longest[i]);
    atomic_store(&t->tenure, tenure);
}

/* Write the totals of one place with the figures of an ended child.  If both have the same
 * tenure, they are added; otherwise the younger tenant's remain.  The child's open connections
 * are counted as killed. */
static void place_fold(pgp_board *board, int s, int p, const totals *from, totals *to)
{
    const unsigned old = atomic_load(&from->tenure);
    const unsigned more = atomic_load(&pgp_board_standing(board, s, p)->tenure);
    pgp_stats sum, stats;

    if (!old && !more) {
        atomic_store(&to->tenure, 0);
        return;
    }
    memset(&sum, 0, sizeof sum);
    if (old >= more)
        totals_read(from, &sum);
    if (more >= old) {
        cell_read(cell_of(board, s, p), 0, &stats);
        stats.n[PGP_N_CLOSES + PGP_REASON_KILLED] += pgp_stats_open(&stats);
        pgp_stats_add(&sum, &stats);
        pgp_stats_confine(&sum, 0);
    }
    totals_write(to, &sum, old > more ? old : more);
}

/* --- life and death --------------------------------------------------------- */

/* Two processes may read the clock in one order and act in the other, so ended_at may lie after
 * now. */
static int is_graced(const seat *at, apr_time_t now)
{
    const apr_int64_t ended_at = atomic_load(&at->ended_at);

    return ended_at > 0 && ended_at < now + PGP_BOARD_GRACE && now - ended_at < PGP_BOARD_GRACE;
}

int pgp_board_is_live(const pgp_board *board, int s)
{
    return atomic_load(&board->seats[s].in_use);
}

int pgp_board_holds_permits(const pgp_board *board, int s, apr_time_t now)
{
    return pgp_board_is_live(board, s) || is_graced(&board->seats[s], now);
}

/* A child as one word, made of seat and incarnation; never 0. */
static apr_uint64_t tenant_of(const pgp_board *board, int s)
{
    return (apr_uint64_t)(s + 1) << 32 | atomic_load(&board->seats[s].incarnation);
}

static int is_folded(const pgp_board *board, int s)
{
    const unsigned current = atomic_load(&board->head->flips) & 1;

    return atomic_load(&board->head->folded[current]) == tenant_of(board, s);
}

static void seat_fold(pgp_board *board, int s)
{
    head *head = board->head;
    const unsigned flips = atomic_load(&head->flips);
    const unsigned current = flips & 1, idle = !current;
    int p;

    for (p = 0; p < board->nplaces; p++)
        place_fold(board, s, p, &board->copies[current][p], &board->copies[idle][p]);
    atomic_store(&head->folded[idle], tenant_of(board, s));
    atomic_store(&head->flips, flips + 1);
}

/* The caller holds the undertaker's lock and that of the seat. */
static void seat_end(pgp_board *board, int s, apr_time_t now)
{
    if (!is_folded(board, s))
        seat_fold(board, s);
    atomic_store(&board->seats[s].ended_at, now);
    atomic_store(&board->seats[s].in_use, 0);
}

static int undertaker_begin(pgp_board *board)
{
    return board->locks.take(board->locks.baton, undertaker_byte(board));
}

static void undertaker_end(pgp_board *board)
{
    board->locks.drop(board->locks.baton, undertaker_byte(board));
}

static void seat_reap(pgp_board *board, int s, apr_time_t now)
{
    if (!atomic_load(&board->seats[s].in_use) || !board->locks.take(board->locks.baton, s))
        return;
    if (atomic_load(&board->seats[s].in_use))
        seat_end(board, s, now);
    board->locks.drop(board->locks.baton, s);
}

/* The last undertaker may have died after its flip and before the end of the seat.  That seat
 * comes first, because only the current copy says that it is folded. */
static void reap_interrupted(pgp_board *board, apr_time_t now)
{
    int s;

    for (s = 0; s < board->nseats; s++)
        if (is_folded(board, s))
            seat_reap(board, s, now);
}

void pgp_board_reap(pgp_board *board, apr_time_t now)
{
    const apr_int64_t last = atomic_load(&board->head->reaped_at);
    int s;

    if ((last <= now && now - last < PGP_BOARD_REAP_STEP) || !undertaker_begin(board))
        return;
    atomic_store(&board->head->reaped_at, now);
    reap_interrupted(board, now);
    for (s = 0; s < board->nseats; s++)
        seat_reap(board, s, now);
    undertaker_end(board);
}

/* The caller holds the seat's lock, so no other process writes here. */
static void seat_begin(pgp_board *board, int s)
{
    int p, row, top = atomic_load(&board->head->top);

    for (row = 0; row < 2 * board->nplaces; row++) {
        pgp_standing *st = pgp_board_standing(board, s, row);

        if (atomic_load(&st->permits) || atomic_load(&st->closing) ||
            atomic_load(&st->connecting) || atomic_load(&st->waits_since) ||
            atomic_load(&st->idle_since) ||
            atomic_load(&st->tenure)) { /* unused memory stays untouched */
            atomic_store(&st->permits, 0);
            atomic_store(&st->closing, 0);
            atomic_store(&st->connecting, 0);
            atomic_store(&st->waits_since, 0);
            atomic_store(&st->idle_since, 0);
            atomic_store(&st->tenure, 0);
        }
    }
    for (p = 0; p < board->nplaces; p++)
        if (board->places[p].current)
            board->locks.share(board->locks.baton, place_byte(board, p));
    while (top <= s && !atomic_compare_exchange_weak(&board->head->top, &top, s + 1))
        ;
    atomic_store(&board->seats[s].ended_at, 0);
    atomic_fetch_add(&board->seats[s].incarnation, 1);
    atomic_store(&board->seats[s].in_use, 1);
}

int pgp_board_claim(pgp_board *board, apr_time_t now)
{
    int s;

    for (s = 0; s < board->nseats; s++) {
        if (pgp_board_holds_permits(board, s, now) || !board->locks.take(board->locks.baton, s))
            continue;
        if (!pgp_board_holds_permits(board, s, now)) {
            seat_begin(board, s);
            return s;
        }
        board->locks.drop(board->locks.baton, s); /* another child claimed it, and died */
    }
    return -1;
}

void pgp_board_leave(pgp_board *board, int s, apr_time_t now)
{
    if (undertaker_begin(board)) {
        reap_interrupted(board, now);
        seat_end(board, s, now);
        undertaker_end(board);
    } /* otherwise the next undertaker ends the seat */
    board->locks.drop(board->locks.baton, s);
}

/* --- what one child logs for all -------------------------------------------- */

/* A new tenant of the place begins with closed gates. */
pgp_gate *pgp_board_gate(pgp_board *board, int p, pgp_gate_id id)
{
    notice *n = &board->notices[p < 0 ? board->nplaces : p];
    const unsigned tenure = p < 0 ? 1 : board->places[p].tenure;
    int i;

    if (atomic_load(&n->tenure) != tenure) {
        for (i = 0; i < PGP_GATES; i++)
            atomic_store(&n->gates[i].since, 0);
        atomic_store(&n->tenure, tenure);
    }
    return &n->gates[id];
}

/* --- what an operator orders -------------------------------------------------- */

pgp_orders pgp_board_orders(const pgp_board *board, int p, apr_time_t now)
{
    const orders *o = &board->orders[p];
    pgp_orders given = {.suspended_until = 0};

    if (atomic_load(&o->tenure) != board->places[p].tenure)
        return given;
    given.suspended_until = atomic_load(&o->suspended_until);
    given.reconnect_before = atomic_load(&o->reconnect_before);
    if (given.suspended_until <= now || given.suspended_until - PGP_SUSPENSION_MOST > now)
        given.suspended_until = 0;
    if (given.reconnect_before < 0 || given.reconnect_before > now)
        given.reconnect_before = 0;
    return given;
}

void pgp_board_order(pgp_board *board, int p, const pgp_orders *given)
{
    orders *o = &board->orders[p];
    int s;

    atomic_store(&o->suspended_until, given->suspended_until);
    atomic_store(&o->reconnect_before, given->reconnect_before);
    atomic_store(&o->tenure, board->places[p].tenure);
    for (s = 0; s < pgp_board_top(board); s++)
        if (pgp_board_is_live(board, s))
            pgp_board_ring(board, s);
}

/* --- readers ---------------------------------------------------------------- */

int pgp_board_seats(const pgp_board *board)
{
    return board->nseats;
}

unsigned pgp_board_flips(const pgp_board *board)
{
    return atomic_load(&board->head->flips);
}

int pgp_board_counts(const pgp_board *board, int s, int *pid)
{
    *pid = 0;
    if (!atomic_load(&board->seats[s].in_use) || is_folded(board, s))
        return 0;
    *pid = board->locks.holder(board->locks.baton, s);
    return 1;
}

void pgp_board_read(const pgp_board *board, int s, int p, apr_time_t now, pgp_stats *stats)
{
    const totals *current = &board->copies[pgp_board_flips(board) & 1][p];
    const unsigned tenure = board->places[p].tenure;

    memset(stats, 0, sizeof *stats);
    if (s >= 0 && atomic_load(&pgp_board_standing(board, s, p)->tenure) == tenure)
        cell_read(cell_of(board, s, p), now, stats);
    else if (s < 0 && atomic_load(&current->tenure) == tenure)
        totals_read(current, stats);
}
