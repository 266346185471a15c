/*
 * Ending what a borrower left running, without a wait.
 *
 * The driver drains what has come.  It ends a COPY IN, and gives a pipeline the rollback and
 * the sync that it lacks.  If something still runs then, it cancels that, and what comes behind
 * it.  PQcancel() blocks and has no deadline, so it runs as a task; and since a cancel may
 * arrive after its statement has ended, the connection is not handed on before the task is done
 * and a round trip has taken in what the cancel hits.  A rollback ends the transaction.
 */
#include "pgp_pq.h"

#include "pgp_pq_effects.h"

/* Limits of one step, so that a large result does not keep the keeper from other
 * connections. */
#define RESULTS_A_STEP 1000
#define ROWS_A_RESULT 100

/* If nothing has come of a cancel by then, another one is sent. */
#define CANCEL_AGAIN PGP_MS(50)

/* --- cancelling -------------------------------------------------------------- */

/* The connection itself will tell what came of the cancel. */
static void cancel_run(PGcancel *cancel)
{
    char unsaid[256];

    PQcancel(cancel, unsaid, sizeof unsaid);
}

PGP_TASK_DEFINE(cancel_task_start, PGcancel, cancel_run, PQfreeCancel)

static void cancel_start(pgp_connection *link)
{
    PGcancel *cancel = PQgetCancel(link->conn);

    link->cleanup.cancelled = true;
    link->cleanup.cancelled_at = pgp_now(link->context->env);
    link->cleanup.answered = false;
    if (!cancel)
        return;
    link->task = cancel_task_start(cancel);
    if (!link->task)
        PQfreeCancel(cancel);
}

/* Something runs that was not cancelled yet; or it was, but the cancel may have come before the
 * server had begun with it. */
static bool cancel_is_due(const pgp_connection *link)
{
    return !link->cleanup.cancelled || link->cleanup.answered ||
           pgp_now(link->context->env) - link->cleanup.cancelled_at >= CANCEL_AGAIN;
}

/* Whether a cancel is still on its way; one that has arrived is forgotten. */
static bool cancel_is_pending(pgp_connection *link)
{
    if (link->task && pgp_task_is_done(link->task))
        pgp_task_leave(&link->task);
    return link->task != NULL;
}

/* If an earlier cancel still hangs, another one would hang as well. */
void pgp_pq_cleanup_abandon(pgp_connection *link)
{
    if (!cancel_is_pending(link))
        cancel_start(link);
}

/* --- draining --------------------------------------------------------------- */

typedef enum {
    DRAIN_MORE, /* there may be more at once */
    DRAIN_WAIT, /* more has to come first */
    DRAIN_END,  /* that was all */
    DRAIN_NEVER /* it cannot be ended */
} drain_state;

/* libpq ends answers with NULL; those of a pipeline with one NULL a query, and for good when
 * the last sync is answered. */
static drain_state drain_null(pgp_connection *link)
{
    if (PQpipelineStatus(link->conn) == PQ_PIPELINE_OFF || PQexitPipelineMode(link->conn))
        return DRAIN_END;
    return DRAIN_MORE;
}

static drain_state drain_copy_out(pgp_connection *link)
{
    char *row;
    int n, length = 0;

    for (n = 0; n < ROWS_A_RESULT; n++) {
        length = PQgetCopyData(link->conn, &row, 1);
        if (length <= 0)
            break;
        PQfreemem(row);
    }
    if (length == -2)
        return DRAIN_NEVER;
    return length == 0 ? DRAIN_WAIT : DRAIN_MORE;
}

static drain_state drain_copy_in(pgp_connection *link)
{
    if (link->cleanup.copy_ended)
        return DRAIN_NEVER;
    link->cleanup.copy_ended = true;
    return PQputCopyEnd(link->conn, "left open by its borrower") == 1 ? DRAIN_MORE
                                                                      : DRAIN_NEVER;
}

static drain_state drain_result(pgp_connection *link)
{
    PGresult *result = PQgetResult(link->conn);
    const ExecStatusType status = PQresultStatus(result);

    if (!result)
        return drain_null(link);
    PQclear(result);
    if (status != PGRES_COPY_OUT)
        link->cleanup.answered = true;
    switch (status) {
    case PGRES_COPY_IN:
        return drain_copy_in(link);
    case PGRES_COPY_OUT:
        return drain_copy_out(link);
    case PGRES_COPY_BOTH:
        return DRAIN_NEVER;
    default:
        return DRAIN_MORE;
    }
}

static drain_state drain_results(pgp_connection *link)
{
    drain_state state = DRAIN_MORE;
    int n;

    for (n = 0; n < RESULTS_A_STEP && state == DRAIN_MORE; n++)
        state = PQisBusy(link->conn) ? DRAIN_WAIT : drain_result(link);
    return state;
}

/* Send a sync behind whatever is in a pipeline: without one the server neither answers nor goes
 * on after an error.  A sync commits, and the driver must not commit what the borrower had not
 * synced, so a rollback goes before it. */
static bool pipeline_close(pgp_connection *link)
{
    if (link->cleanup.pipeline_closed || PQpipelineStatus(link->conn) == PQ_PIPELINE_OFF)
        return true;
    link->cleanup.pipeline_closed = true;
    return PQsendQueryParams(link->conn, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0) &&
           PQpipelineSync(link->conn);
}

/* Go on until nothing runs any more and pipeline mode is off. */
static pgp_step drain_step(pgp_connection *link, struct pollfd *await, pgp_error *error)
{
    drain_state state = DRAIN_NEVER;

    /* The server takes in nothing until it is done with what it has: a cancel makes room. */
    if (pgp_pq_exchange_is_blocked(link)) {
        if (cancel_is_due(link))
            cancel_start(link);
        *await = (struct pollfd){.fd = PQsocket(link->conn), .events = POLLOUT};
        return PGP_STEP_AGAIN;
    }
    if (pgp_pq_exchange_set_nonblocking(link) && pipeline_close(link) &&
        PQflush(link->conn) >= 0 && PQconsumeInput(link->conn))
        state = drain_results(link);
    if (state == DRAIN_NEVER) {
        pgp_pq_error_last(error, link);
        return PGP_STEP_FAILED;
    }
    if (state == DRAIN_END)
        return PGP_STEP_DONE;
    if (state == DRAIN_WAIT && cancel_is_due(link))
        cancel_start(link);
    /* If there is more at once: the socket takes something, so the keeper comes again. */
    *await = pgp_pq_exchange_await(link, PQflush(link->conn) || state == DRAIN_MORE);
    return PGP_STEP_AGAIN;
}

/* --- phases ----------------------------------------------------------------- */

void pgp_pq_cleanup_start(pgp_connection *link)
{
    pgp_pq_assert_ready(link);
    link->phase = CANCELLING;
    link->cleanup.pipeline_closed = link->cleanup.copy_ended = link->cleanup.drained = false;
    link->cleanup.cancelled = link->cleanup.answered = false;
}

/* DONE: nothing runs, and no cancel is on its way. */
static pgp_step cancelling_step(pgp_connection *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = PGP_STEP_AGAIN;

    if (!cancel_is_pending(link)) {
        step = link->cleanup.drained ? PGP_STEP_DONE : drain_step(link, await, error);
        link->cleanup.drained = step == PGP_STEP_DONE;
    }
    if (step == PGP_STEP_FAILED || !link->task)
        return step;
    *await = (struct pollfd){.fd = pgp_task_fd(link->task), .events = POLLIN};
    return PGP_STEP_AGAIN;
}

/* Begin one more exchange. */
static pgp_step exchange_start(pgp_connection *link, pgp_pq_phase phase, const char *sql,
                               struct pollfd *await, pgp_error *error)
{
    link->phase = phase;
    return pgp_pq_exchange_send(link, sql, error) ? pgp_pq_exchange_receive(link, await, error)
                                                  : PGP_STEP_FAILED;
}

static pgp_step transaction_ended(pgp_connection *link, pgp_error *error)
{
    link->phase = READY;
    pgp_pq_exchange_drop_notifies(link); /* the transaction's end has brought them */
    /* The results that were drained may not tell of all that was done. */
    link->lease.effects |= PGP_EFFECT_ANY | PGP_EFFECT_CHANGE;
    if (PQtransactionStatus(link->conn) == PQTRANS_IDLE)
        return PGP_STEP_DONE;
    pgp_error_text(error, "the transaction could not be ended");
    return PGP_STEP_FAILED;
}

/* Each phase falls into the next one as soon as it is done. */
static pgp_step phase_step(pgp_connection *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step;

    if (link->phase == CANCELLING) {
        step = cancelling_step(link, await, error);
        if (step == PGP_STEP_DONE && link->cleanup.cancelled)
            step = exchange_start(link, ABSORBING, "", await, error);
    }
    else
        step = pgp_pq_exchange_receive(link, await, error);
    if (step == PGP_STEP_DONE && link->phase != ROLLING_BACK &&
        PQtransactionStatus(link->conn) != PQTRANS_IDLE)
        step = exchange_start(link, ROLLING_BACK, "ROLLBACK", await, error);
    return step == PGP_STEP_DONE ? transaction_ended(link, error) : step;
}

pgp_step pgp_pq_cleanup_step(pgp_connection *link, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = phase_step(link, await, error);
    pgp_error words;

    if (step != PGP_STEP_FAILED)
        return step;
    pgp_pq_idle_last_words(link, &words);
    if (*words.message)
        *error = words;
    return PGP_STEP_FAILED;
}
