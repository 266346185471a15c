/* Makes the board's memory, and tells where everything is in it (pgp_board.h). */
#include "pgp_board_private.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/mman.h>

pgp_standing *pgp_board_standing(const pgp_board *board, int seat, int row)
{
    return &board->standings[(apr_size_t)row * board->nseats + seat];
}

int pgp_board_top(const pgp_board *board)
{
    const int top = atomic_load(&board->head->top);

    return top < 0 ? 0 : top > board->nseats ? board->nseats : top;
}

int pgp_board_pool_row(const pgp_board *board, int place)
{
    return place;
}

int pgp_board_server_row(const pgp_board *board, int place)
{
    return board->nplaces + board->places[place].host;
}

int pgp_board_seats(const pgp_board *board)
{
    return board->nseats;
}

unsigned pgp_board_flips(const pgp_board *board)
{
    return atomic_load(&board->head->flips);
}

int pgp_board_reaper_byte(const pgp_board *board)
{
    return board->nseats;
}

int pgp_board_place_byte(const pgp_board *board, int place)
{
    return board->nseats + 1 + place;
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
    return sizeof(pgp_board) * 31 + sizeof(pgp_place) * 37 + sizeof(pgp_seat) * 41 +
           sizeof(pgp_totals) * 43 + sizeof(pgp_shared_gates) * 47 + sizeof(pgp_standing) * 53 +
           sizeof(pgp_cell) * 59 + sizeof(pgp_head) * 61 + sizeof(pgp_turn) * 67 +
           sizeof(pgp_shared_orders) * 71;
}

/* The next part of the mapping, which has this size.  Adds the size to *used.  base NULL: there
 * is no mapping yet, the caller only wants the sum. */
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

    board->head = part_next(base, &used, sizeof(pgp_head));
    board->seats = part_next(base, &used, seats * sizeof(pgp_seat));
    board->copies[0] = part_next(base, &used, places * sizeof(pgp_totals));
    board->copies[1] = part_next(base, &used, places * sizeof(pgp_totals));
    board->orders = part_next(base, &used, places * sizeof(pgp_shared_orders));
    board->gates = part_next(base, &used, (places + 1) * sizeof(pgp_shared_gates));
    board->standings = part_next(base, &used, 2 * places * seats * sizeof(pgp_standing));
    board->turns = part_next(base, &used, 2 * places * sizeof(pgp_turn));
    board->cells = part_next(base, &used, seats * places * sizeof(pgp_cell));
    return used;
}

/* The memory is a file, whose name an operator finds in /proc/PID/maps.  It is sealed: if a
 * child could truncate it, the others would die of SIGBUS.  Pages that nobody writes cost
 * nothing. */
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

void pgp_board_attach_bells(pgp_board *board, const pgp_bells *bells)
{
    board->bells = *bells;
}

void pgp_board_ring(const pgp_board *board, int seat)
{
    if (board->bells.baton)
        board->bells.ring(board->bells.baton, seat);
}

int pgp_board_bell(const pgp_board *board, int seat)
{
    return board->bells.baton ? board->bells.fd(board->bells.baton, seat) : -1;
}
