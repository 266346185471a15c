/*
 * Winding up: what a borrower left running is ended, by the keeper, without a wait.
 *
 * What has come is drained; a COPY IN is ended from here; a pipeline gets the rollback
 * and the sync that it lacks.  If something still runs then, it is cancelled, and so is what
 * comes behind it.  PQcancel() blocks and has no deadline, so it runs as a task; and because a
 * cancel may arrive after what it was meant for has ended, the link is not done before the task
 * is.
 */
#include "pgp_pq_private.h"

/* Results taken in one step, so that a large one does not keep the keeper from
 * other links. */
#define RESULTS_A_STEP 1000
#define ROWS_A_RESULT 100

/* If nothing has come of a cancel by then, another is sent. */
#define CANCEL_AGAIN PGP_MS(50)

static void cancel_run(void *data)
{
    char error[256];

    PQcancel(data, error, sizeof error); /* what came of it the connection tells */
}

static void cancel_dispose(void *data)
{
    PQfreeCancel(data);
}

static void cancel_start(pgp_link *link)
{
    PGcancel *cancel = PQgetCancel(link->conn);

    link->cancelled = 1;
    link->cancelled_at = pgp_now(link->context->env);
    link->answered = 0;
    if (!cancel)
        return;
    link->task = pgp_task_start(cancel_run, cancel_dispose, cancel);
    if (!link->task)
        PQfreeCancel(cancel);
}

void pgp_pq_cleanup_abandon(pgp_link *link)
{
    /* One that is still on its way would be followed by another that hangs. */
    if (link->task && !pgp_task_done(link->task))
        return;
    if (link->task)
        pgp_task_leave(&link->task);
    cancel_start(link);
}

typedef enum {
    DRAIN_ON,   /* there may be more at once */
    DRAIN_WAIT, /* more has to come first */
    DRAIN_END,  /* that was all */
    DRAIN_NEVER /* it cannot be ended */
} drained;

/* Answers end with NULL; those of a pipeline with one NULL a query, and when the last
 * sync is answered. */
static drained drain_null(pgp_link *link)
{
    if (PQpipelineStatus(link->conn) == PQ_PIPELINE_OFF || PQexitPipelineMode(link->conn))
        return DRAIN_END;
    return DRAIN_ON;
}

static drained drain_copy_out(pgp_link *link)
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
    return length == 0 ? DRAIN_WAIT : DRAIN_ON;
}

static drained drain_copy_in(pgp_link *link)
{
    if (link->copy_ended)
        return DRAIN_NEVER;
    link->copy_ended = 1;
    return PQputCopyEnd(link->conn, "left open by its borrower") == 1 ? DRAIN_ON : DRAIN_NEVER;
}

static drained drain_result(pgp_link *link)
{
    PGresult *result = PQgetResult(link->conn);
    const ExecStatusType status = PQresultStatus(result);

    if (!result)
        return drain_null(link);
    PQclear(result);
    if (status != PGRES_COPY_OUT)
        link->answered = 1;
    switch (status) {
    case PGRES_COPY_IN:
        return drain_copy_in(link);
    case PGRES_COPY_OUT:
        return drain_copy_out(link);
    case PGRES_COPY_BOTH:
        return DRAIN_NEVER;
    default:
        return DRAIN_ON;
    }
}

static drained drain(pgp_link *link)
{
    drained so_far = DRAIN_ON;
    int n;

    for (n = 0; n < RESULTS_A_STEP && so_far == DRAIN_ON; n++)
        so_far = PQisBusy(link->conn) ? DRAIN_WAIT : drain_result(link);
    return so_far;
}

void pgp_pq_cleanup_start(pgp_link *link)
{
    link->phase = WINDING_UP;
    link->synced = link->copy_ended = link->drained = 0;
    link->cancelled = link->answered = 0;
}

/* Whatever is in a pipeline gets a sync behind it: without one the server neither
 * answers nor goes on after an error.  A sync commits; what its borrower had not synced
 * is not for us to commit. */
static int pipeline_close(pgp_link *link)
{
    if (link->synced || PQpipelineStatus(link->conn) == PQ_PIPELINE_OFF)
        return 1;
    link->synced = 1;
    return PQsendQueryParams(link->conn, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0) &&
           PQpipelineSync(link->conn);
}

/* A cancel that has ended is done with; 1: one is still on its way. */
static int cancel_pending(pgp_link *link)
{
    if (link->task && pgp_task_done(link->task))
        pgp_task_leave(&link->task);
    return link->task != NULL;
}

static pgp_step await_cancel(const pgp_link *link, struct pollfd *await)
{
    *await = (struct pollfd){.fd = pgp_task_fd(link->task), .events = POLLIN};
    return PGP_STEP_AGAIN;
}

static pgp_step windup_fail(const pgp_link *link, pgp_error *error)
{
    pgp_error_text(error, PQerrorMessage(link->conn));
    return PGP_STEP_FAILED;
}

/* Something runs that was not cancelled yet; or it was, but the cancel may have come before
 * the server had begun with it. */
static int cancel_due(const pgp_link *link)
{
    return !link->cancelled || link->answered ||
           pgp_now(link->context->env) - link->cancelled_at >= CANCEL_AGAIN;
}

/* The server takes in nothing until it is done with what it has, so a cancel has to make
 * room first. */
static pgp_step await_room(pgp_link *link, struct pollfd *await)
{
    if (cancel_due(link))
        cancel_start(link);
    *await = (struct pollfd){.fd = PQsocket(link->conn), .events = POLLOUT};
    return PGP_STEP_AGAIN;
}

static pgp_step drain_more(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    drained so_far;
    int unsent;

    if (pgp_pq_blocked(link))
        return await_room(link, await);
    if (!pgp_pq_nonblocking(link) || !pipeline_close(link) || PQflush(link->conn) < 0 ||
        !PQconsumeInput(link->conn))
        return windup_fail(link, error);
    so_far = drain(link);
    if (so_far == DRAIN_NEVER)
        return windup_fail(link, error);
    if (so_far == DRAIN_END)
        return PGP_STEP_DONE;
    if (so_far == DRAIN_WAIT && cancel_due(link))
        cancel_start(link);
    unsent = PQflush(link->conn);
    /* More at once: come again as soon as the socket takes anything. */
    *await = pgp_pq_await(link, unsent || so_far == DRAIN_ON);
    return PGP_STEP_AGAIN;
}

pgp_step pgp_pq_cleanup_step(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = PGP_STEP_DONE;

    if (cancel_pending(link))
        return await_cancel(link, await);
    if (!link->drained)
        step = drain_more(link, await, error);
    if (step == PGP_STEP_DONE)
        link->drained = 1;
    if (step != PGP_STEP_FAILED && link->task)
        return await_cancel(link, await);
    return step;
}
