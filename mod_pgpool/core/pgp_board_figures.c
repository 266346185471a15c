/* Keeps the figures of the children, and the totals of those that have ended (pgp_board.h). */
#include "pgp_board_private.h"

#include <string.h>

/* --- a child's figures ------------------------------------------------------ */

static pgp_cell *cell_of(const pgp_board *board, int seat, int place)
{
    return &board->cells[(apr_size_t)seat * board->nplaces + place];
}

static bool is_zero(const pgp_stats *stats)
{
    static const pgp_stats nothing;

    return !memcmp(stats, &nothing, sizeof nothing);
}

/* The stores are releases, and cell_read() acquires: a reader that has seen a new word sees the
 * odd version, too.  A cell has one writer; afterwards the version is even, whatever it was
 * before. */
static void cell_write(pgp_cell *c, const pgp_stats *stats)
{
    const unsigned version = atomic_load(&c->version) | 1;
    apr_uint64_t words[PGP_STATS_WORDS];
    unsigned i;

    memcpy(words, stats, sizeof words);
    atomic_store(&c->version, version);
    for (i = 0; i < PGP_STATS_WORDS; i++)
        atomic_store_explicit(&c->words[i], words[i], memory_order_release);
    atomic_store(&c->version, version + 1);
}

/* A writer that died or lost its processor in the middle leaves an odd version.  Then the
 * reader gives up after some tries and takes a mixture of old and new figures, in which no
 * number is torn and no counter goes back. */
static void cell_read(const pgp_cell *c, apr_time_t now, pgp_stats *stats)
{
    apr_uint64_t words[PGP_STATS_WORDS];
    unsigned before, tries, i;

    for (tries = 0; tries < 100; tries++) {
        before = atomic_load(&c->version);
        for (i = 0; i < PGP_STATS_WORDS; i++)
            words[i] = atomic_load_explicit(&c->words[i], memory_order_acquire);
        if (!(before & 1) && before == atomic_load(&c->version))
            break;
    }
    memcpy(stats, words, sizeof words);
    pgp_stats_confine(stats, now);
}

void pgp_board_publish(pgp_board *board, int seat, int place, const pgp_stats *stats)
{
    pgp_standing *st = pgp_board_standing(board, seat, place);
    const unsigned tenure = board->places[place].tenure;

    if (atomic_load(&st->tenure) != tenure && is_zero(stats))
        return;
    cell_write(cell_of(board, seat, place), stats);
    atomic_store(&st->tenure, tenure);
}

/* --- totals ----------------------------------------------------------------- */

static void totals_read(const pgp_totals *t, pgp_stats *stats)
{
    int i;

    memset(stats, 0, sizeof *stats);
    for (i = 0; i < PGP_COUNTERS; i++)
        stats->n[i] = atomic_load_explicit(&t->n[i], memory_order_acquire);
    for (i = 0; i < PGP_TIMES; i++)
        stats->longest[i] = atomic_load(&t->longest[i]);
    pgp_stats_confine(stats, 0);
}

static void totals_write(pgp_totals *t, const pgp_stats *stats, unsigned tenure)
{
    int i;

    for (i = 0; i < PGP_COUNTERS; i++)
        atomic_store_explicit(&t->n[i], stats->n[i], memory_order_release);
    for (i = 0; i < PGP_TIMES; i++)
        atomic_store(&t->longest[i], stats->longest[i]);
    atomic_store(&t->tenure, tenure);
}

/* Write the totals of one place with the figures of an ended child.  If both have the same
 * tenure, the sum is written; otherwise those of the greater tenure.  The child's open
 * connections count as killed. */
static void place_fold(pgp_board *board, int seat, int place, const pgp_totals *from,
                       pgp_totals *to)
{
    const unsigned old = atomic_load(&from->tenure);
    const unsigned more = atomic_load(&pgp_board_standing(board, seat, place)->tenure);
    pgp_stats sum, stats;

    if (!old && !more) {
        atomic_store(&to->tenure, 0);
        return;
    }
    memset(&sum, 0, sizeof sum);
    if (old >= more)
        totals_read(from, &sum);
    if (more >= old) {
        cell_read(cell_of(board, seat, place), 0, &stats);
        stats.n[PGP_N_CLOSES + PGP_REASON_KILLED] += pgp_stats_open(&stats);
        pgp_stats_add(&sum, &stats);
        pgp_stats_confine(&sum, 0);
    }
    totals_write(to, &sum, old > more ? old : more);
}

void pgp_board_fold(pgp_board *board, int seat, unsigned from, unsigned to)
{
    int place;

    for (place = 0; place < board->nplaces; place++)
        place_fold(board, seat, place, &board->copies[from][place], &board->copies[to][place]);
}

void pgp_board_read(const pgp_board *board, int seat, int place, apr_time_t now,
                    pgp_stats *stats)
{
    const pgp_totals *current = &board->copies[pgp_board_flips(board) & 1][place];
    const unsigned tenure = board->places[place].tenure;

    memset(stats, 0, sizeof *stats);
    if (seat >= 0 && atomic_load(&pgp_board_standing(board, seat, place)->tenure) == tenure)
        cell_read(cell_of(board, seat, place), now, stats);
    else if (seat < 0 && atomic_load(&current->tenure) == tenure)
        totals_read(current, stats);
}
