/*
 * Pins: the hold of a family of requests on a connection.
 *
 * Model.  A family has one pin for each pool that it uses.  The pin belongs to the initial
 * request: it is listed in that request's request_config, and a cleanup of that request's pool
 * gives the connection back if nothing else did.
 *
 * Borrowers.  A pin has a list of borrowers: the requests that have acquired it, the innermost
 * first, each with the session variables that it wants.  The innermost borrower that runs is
 * the one whose variables are set on the connection.  When a request ends, its borrowers leave
 * the list, and the variables of the next one are set again (pgpool_pins_restore).  The list
 * stays while the pin has no connection.
 *
 * Threads.  A pin is used by the thread that works on its family.
 */
#ifndef MOD_PGPOOL_PIN_H
#define MOD_PGPOOL_PIN_H

#include <stdbool.h>
#include <httpd.h>

#include "core/pgp_pool.h"
#include "mod_pgpool_child.h"

typedef struct pgpool_pin pgpool_pin;
typedef struct pgpool_pin_borrower pgpool_pin_borrower;

struct pgpool_pin_borrower {
    pgpool_pin_borrower *outer;
    pgpool_pin *pin;
    request_rec *r;
    pgp_vars vars;   /* in r's memory */
    bool found_busy; /* an outer request's query was under way when r acquired */
};

struct pgpool_pin {
    pgpool_pin *next;
    const pgpool_child_pool *pool;
    pgp_slot *slot;                 /* NULL: it holds no connection now */
    bool is_borrowing;              /* a connection is being borrowed for it: hooks run */
    const char *lease_text;         /* the identifier of the lease */
    bool at_response;               /* PgPoolRelease response */
    pgpool_pin_borrower *borrowers; /* the innermost first */
    struct {
        apr_status_t rv;  /* APR_SUCCESS: none */
        const char *text; /* for the note */
        apr_time_t until; /* an acquire fails at once with it until then */
    } failure;            /* of the last acquire */
};

/* The pin of an initial request's family on this pool.  find: NULL if there is none. */
pgpool_pin *pgpool_pin_find(request_rec *initial, const pgpool_child_pool *pool);
pgpool_pin *pgpool_pin_make(request_rec *initial, const pgpool_child_pool *pool);

/* Give the connection back; the pin stays, for the next acquire. */
void pgpool_pin_release(pgpool_pin *pin);

/* --- borrowers -------------------------------------------------------------- */

/* Put r on the list, outside of the borrowers that run inside r.  vars are in r's memory. */
void pgpool_pin_enter(pgpool_pin *pin, request_rec *r, const pgp_vars *vars);

/* Take `ended` and all requests inside it from the list.  Returns the outermost of them, or
 * NULL. */
const pgpool_pin_borrower *pgpool_pin_leave(pgpool_pin *pin, const request_rec *ended);

/* Take the requests from the list that have ended unseen: those that r does not run inside. */
void pgpool_pin_prune(pgpool_pin *pin, const request_rec *r);

/* The innermost borrower that r runs inside; NULL if there is none. */
const pgpool_pin_borrower *pgpool_pin_outer(const pgpool_pin *pin, const request_rec *r);

/* The innermost borrower, if it runs inside r at this moment; else NULL. */
const pgpool_pin_borrower *pgpool_pin_inner(const pgpool_pin *pin, const request_rec *r);

/* --- all pins of a family --------------------------------------------------- */

/* Whether the family of r holds a connection. */
bool pgpool_pins_are_held(request_rec *r);

/* After the end of a request inside another one: set the variables of the outer borrowers
 * again, or shut their connections down. */
void pgpool_pins_restore(request_rec *ended);

/* Give back every connection of an initial request's family, or those that go back at the end
 * of the response. */
void pgpool_pins_release(request_rec *initial);
void pgpool_pins_release_at_response(request_rec *initial);

#endif
