/*
 * Ends whatever a borrower has left running, without waiting.
 *
 * The driver reads and drops the results that have come.  It ends a COPY IN, and gives a
 * pipeline the rollback and the sync that it lacks.  If a statement still runs then, the driver
 * cancels it and those behind it.  PQcancel() blocks and has no deadline, so it runs as a task.
 * A cancel may arrive after its statement has ended.  So the driver waits for the task, and
 * then makes a round trip, for the late cancel to hit.  At last a rollback ends the
 * transaction.
 */
#include "pgp_pq.h"

#include "pgp_pq_effects.h"

/* Limits of one step, so that a large result does not keep the keeper from other
 * connections. */
#define RESULTS_A_STEP 1000
#define ROWS_A_RESULT 100

/* If a cancel has had no effect after this time, the driver sends another one. */
#define CANCEL_AGAIN PGP_MS(50)

/* --- cancelling -------------------------------------------------------------- */

/* Send a cancel request.  Its outcome shows on the connection itself. */
static void cancel_run(PGcancel *cancel)
{
    char unsaid[256];

    PQcancel(cancel, unsaid, sizeof unsaid);
}

PGP_TASK_DEFINE(cancel_task_start, PGcancel, cancel_run, PQfreeCancel)

static void cancel_start(pgp_connection *connection)
{
    PGcancel *cancel = PQgetCancel(connection->conn);

    connection->cleanup.cancelled = true;
    connection->cleanup.cancelled_at = pgp_now(connection->context->env);
    connection->cleanup.answered = false;
    if (!cancel)
        return;
    connection->task = cancel_task_start(cancel);
    if (!connection->task)
        PQfreeCancel(cancel);
}

/* Whether to cancel what runs: the driver has not cancelled it yet; or it has, but the cancel
 * may have arrived before the server began with the statement. */
static bool cancel_is_due(const pgp_connection *connection)
{
    return !connection->cleanup.cancelled || connection->cleanup.answered ||
           pgp_now(connection->context->env) - connection->cleanup.cancelled_at >= CANCEL_AGAIN;
}

/* Whether a cancel is still on its way; one that has arrived is forgotten. */
static bool cancel_is_pending(pgp_connection *connection)
{
    if (connection->task && pgp_task_is_done(connection->task))
        pgp_task_leave(&connection->task);
    return connection->task != NULL;
}

/* If an earlier cancel still hangs, another one would hang as well. */
void pgp_pq_cleanup_abandon(pgp_connection *connection)
{
    if (!cancel_is_pending(connection))
        cancel_start(connection);
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
static drain_state drain_null(pgp_connection *connection)
{
    if (PQpipelineStatus(connection->conn) == PQ_PIPELINE_OFF ||
        PQexitPipelineMode(connection->conn))
        return DRAIN_END;
    return DRAIN_MORE;
}

static drain_state drain_copy_out(pgp_connection *connection)
{
    char *row;
    int n, length = 0;

    for (n = 0; n < ROWS_A_RESULT; n++) {
        length = PQgetCopyData(connection->conn, &row, 1);
        if (length <= 0)
            break;
        PQfreemem(row);
    }
    if (length == -2)
        return DRAIN_NEVER;
    return length == 0 ? DRAIN_WAIT : DRAIN_MORE;
}

static drain_state drain_copy_in(pgp_connection *connection)
{
    if (connection->cleanup.copy_ended)
        return DRAIN_NEVER;
    connection->cleanup.copy_ended = true;
    return PQputCopyEnd(connection->conn, "left open by its borrower") == 1 ? DRAIN_MORE
                                                                            : DRAIN_NEVER;
}

static drain_state drain_result(pgp_connection *connection)
{
    PGresult *result = PQgetResult(connection->conn);
    const ExecStatusType status = PQresultStatus(result);

    if (!result)
        return drain_null(connection);
    PQclear(result);
    if (status != PGRES_COPY_OUT)
        connection->cleanup.answered = true;
    switch (status) {
    case PGRES_COPY_IN:
        return drain_copy_in(connection);
    case PGRES_COPY_OUT:
        return drain_copy_out(connection);
    case PGRES_COPY_BOTH:
        return DRAIN_NEVER;
    default:
        return DRAIN_MORE;
    }
}

static drain_state drain_results(pgp_connection *connection)
{
    drain_state state = DRAIN_MORE;
    int n;

    for (n = 0; n < RESULTS_A_STEP && state == DRAIN_MORE; n++)
        state = PQisBusy(connection->conn) ? DRAIN_WAIT : drain_result(connection);
    return state;
}

/* Send a sync behind whatever is in a pipeline: without one the server neither answers nor goes
 * on after an error.  A sync commits, and the driver must not commit what the borrower had not
 * synced, so a rollback goes before it. */
static bool pipeline_close(pgp_connection *connection)
{
    if (connection->cleanup.pipeline_closed ||
        PQpipelineStatus(connection->conn) == PQ_PIPELINE_OFF)
        return true;
    connection->cleanup.pipeline_closed = true;
    return PQsendQueryParams(connection->conn, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0) &&
           PQpipelineSync(connection->conn);
}

/* Go on until nothing runs any more and pipeline mode is off. */
static pgp_step drain_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    drain_state state = DRAIN_NEVER;

    /* The server takes no more input before its statement has ended: a cancel makes room. */
    if (pgp_pq_exchange_is_blocked(connection)) {
        if (cancel_is_due(connection))
            cancel_start(connection);
        *await = (struct pollfd){.fd = PQsocket(connection->conn), .events = POLLOUT};
        return PGP_STEP_AGAIN;
    }
    if (pgp_pq_exchange_set_nonblocking(connection) && pipeline_close(connection) &&
        PQflush(connection->conn) >= 0 && PQconsumeInput(connection->conn))
        state = drain_results(connection);
    if (state == DRAIN_NEVER) {
        pgp_pq_error_last(error, connection);
        return PGP_STEP_FAILED;
    }
    if (state == DRAIN_END)
        return PGP_STEP_DONE;
    if (state == DRAIN_WAIT && cancel_is_due(connection))
        cancel_start(connection);
    /* If more can be read at once, await POLLOUT as well, which comes at once. */
    *await = pgp_pq_exchange_await(connection,
                                   PQflush(connection->conn) || state == DRAIN_MORE);
    return PGP_STEP_AGAIN;
}

/* --- phases ----------------------------------------------------------------- */

bool pgp_pq_cleanup_start(pgp_connection *connection)
{
    pgp_pq_assert_ready(connection);
    connection->phase = PGP_PQ_CANCELLING;
    connection->cleanup.pipeline_closed = connection->cleanup.copy_ended =
        connection->cleanup.drained = false;
    connection->cleanup.cancelled = connection->cleanup.answered = false;
    return PQtransactionStatus(connection->conn) == PQTRANS_ACTIVE;
}

/* DONE: nothing runs, and no cancel is on its way. */
static pgp_step cancelling_step(pgp_connection *connection, struct pollfd *await,
                                pgp_error *error)
{
    pgp_step step = PGP_STEP_AGAIN;

    if (!cancel_is_pending(connection)) {
        step = connection->cleanup.drained ? PGP_STEP_DONE
                                           : drain_step(connection, await, error);
        connection->cleanup.drained = step == PGP_STEP_DONE;
    }
    if (step == PGP_STEP_FAILED || !connection->task)
        return step;
    *await = (struct pollfd){.fd = pgp_task_fd(connection->task), .events = POLLIN};
    return PGP_STEP_AGAIN;
}

/* Begin one more exchange. */
static pgp_step exchange_start(pgp_connection *connection, pgp_pq_phase phase, const char *sql,
                               struct pollfd *await, pgp_error *error)
{
    connection->phase = phase;
    return pgp_pq_exchange_send(connection, sql, error)
               ? pgp_pq_exchange_receive(connection, await, error)
               : PGP_STEP_FAILED;
}

static pgp_step transaction_ended(pgp_connection *connection, pgp_error *error)
{
    connection->phase = PGP_PQ_READY;
    pgp_pq_exchange_drop_notifies(connection); /* the transaction's end has brought them */
    /* The dropped results may not tell all effects of the lease. */
    connection->lease.effects |= PGP_EFFECT_ANY | PGP_EFFECT_CHANGE;
    if (PQtransactionStatus(connection->conn) == PQTRANS_IDLE)
        return PGP_STEP_DONE;
    pgp_error_set_text(error, "the transaction could not be ended");
    return PGP_STEP_FAILED;
}

/* Each phase falls into the next one as soon as it is done. */
static pgp_step phase_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    pgp_step step;

    if (connection->phase == PGP_PQ_CANCELLING) {
        step = cancelling_step(connection, await, error);
        if (step == PGP_STEP_DONE && connection->cleanup.cancelled)
            step = exchange_start(connection, PGP_PQ_ABSORBING, "", await, error);
    }
    else
        step = pgp_pq_exchange_receive(connection, await, error);
    if (step == PGP_STEP_DONE && connection->phase != PGP_PQ_ROLLING_BACK &&
        PQtransactionStatus(connection->conn) != PQTRANS_IDLE)
        step = exchange_start(connection, PGP_PQ_ROLLING_BACK, "ROLLBACK", await, error);
    return step == PGP_STEP_DONE ? transaction_ended(connection, error) : step;
}

pgp_step pgp_pq_cleanup_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = phase_step(connection, await, error);
    pgp_error words;

    if (step != PGP_STEP_FAILED)
        return step;
    pgp_pq_idle_last_words(connection, &words);
    if (*words.message)
        *error = words;
    return PGP_STEP_FAILED;
}
