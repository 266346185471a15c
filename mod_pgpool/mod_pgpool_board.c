/*
 * Makes, keeps and finds the parent's board (mod_pgpool_board.h).
 */
#include "mod_pgpool_board.h"

#include <ap_mpm.h>
#include <apr_strings.h>
#include <httpd.h>
#include <http_config.h>

#include "mod_pgpool_definition.h"
#include "mod_pgpool_env.h"

/* Places for pools that a later configuration may have beside those of the start. */
#define SPARE_PLACES 16

static const char *board_key(char key[64])
{
    apr_snprintf(key, 64, "mod_pgpool board %" APR_SIZE_T_FMT " %" APR_SIZE_T_FMT,
                 pgp_board_layout(), sizeof(pgpool_board));
    return key;
}

const pgpool_board *pgpool_board_find(void)
{
    char key[64];

    return ap_retained_data_get(board_key(key));
}

/* The board is retained only when it is whole: a later start would find an incomplete one. */
apr_status_t pgpool_board_make(apr_pool_t *p, int pools)
{
    const int seats = pgp_board_seats_for(pgpool_mpm_number(AP_MPMQ_HARD_LIMIT_DAEMONS));
    const int places = 2 * pools + SPARE_PLACES;
    pgpool_board *retained;
    pgp_board *board;
    pgp_locks locks;
    pgp_bells bells;
    char key[64];
    apr_status_t rv = pgp_locks_create(&locks, p, pgp_board_locks(seats, places));

    if (rv == APR_SUCCESS)
        rv = pgp_bells_create(&bells, p, seats);
    if (rv == APR_SUCCESS)
        rv = pgp_board_create(&board, p, seats, places, &locks);
    if (rv != APR_SUCCESS)
        return rv;
    pgp_board_attach_bells(board, &bells);
    retained = ap_retained_data_create(board_key(key), sizeof(*retained));
    *retained = (pgpool_board){.core = board, .start = pgpool_env_now()};
    return APR_SUCCESS;
}

static pgp_board_pool board_pool_of(const pgpool_definition *definition)
{
    return (pgp_board_pool){.name = definition->name,
                            .server = definition->server,
                            .host = definition->host,
                            .nth = definition->nth};
}

int pgpool_board_configure(const pgpool_board *board, const apr_array_header_t *definitions)
{
    pgp_board_pool *pools = apr_palloc(definitions->pool,
                                       (definitions->nelts + 1) * sizeof(*pools));
    int i, without;

    for (i = 0; i < definitions->nelts; i++)
        pools[i] = board_pool_of(APR_ARRAY_IDX(definitions, i, pgpool_definition *));
    without = pgp_board_configure(board->core, pools, definitions->nelts);
    for (i = 0; i < definitions->nelts; i++)
        APR_ARRAY_IDX(definitions, i, pgpool_definition *)->place = pgp_board_place(board->core,
                                                                                    &pools[i]);
    return without;
}
