/*
 * apr_dbd's transactions (mod_pgpool_dbd_driver.h).
 *
 * A transaction that nobody ends is rolled back, while mod_dbd commits it.  apr-util ends it
 * when its memory dies, in a cleanup; our pre-cleanup runs before that and asks for a rollback.
 * If the connection went back earlier, the pool has rolled it back.
 */
#include "mod_pgpool_dbd_driver.h"

static apr_status_t transaction_cleanup(void *data)
{
    apr_dbd_transaction_t *trans = data;

    trans->mode |= APR_DBD_TRANSACTION_ROLLBACK;
    return APR_SUCCESS;
}

/* The caller may pass its former transaction again.  The consumers of a request share its
 * connection, so only one of them can have a transaction at a time. */
int pgpool_dbd_transaction_start(apr_pool_t *p, apr_dbd_t *handle,
                                 apr_dbd_transaction_t **trans)
{
    const int wrong = handle->trans ? pgpool_dbd_fail(handle, "a transaction is open already")
                                    : pgpool_dbd_command(handle, "BEGIN");

    if (wrong && handle->trans && handle->trans == *trans)
        return wrong; /* it is open, and stays so */
    if (wrong) {
        if (*trans)
            (*trans)->handle = NULL;
        return wrong;
    }
    if (!*trans)
        *trans = apr_palloc(p, sizeof(**trans));
    **trans = (apr_dbd_transaction_t){.handle = handle, .p = p};
    handle->trans = *trans;
    apr_pool_pre_cleanup_register(p, *trans, transaction_cleanup);
    return 0;
}

/* The server answers a COMMIT of a failed transaction with success, and rolls it back. */
static int transaction_commit(apr_dbd_t *handle)
{
    const pgpool_statement text = {.sql = "COMMIT", .nparams = -1};
    PGresult *result;
    int wrong = pgpool_dbd_execute(handle, &text, NULL, &result);

    if (!wrong && strcmp(PQcmdStatus(result), "COMMIT") != 0)
        wrong = pgpool_dbd_fail(handle, "the transaction has failed, and was rolled back");
    PQclear(result);
    return wrong;
}

/* To commit a transaction whose connection was given back is an error. */
int pgpool_dbd_transaction_end(apr_dbd_transaction_t *trans)
{
    apr_dbd_t *handle = trans ? trans->handle : NULL;
    const bool is_rollback = trans && (trans->mode & APR_DBD_TRANSACTION_ROLLBACK);

    if (!handle)
        return trans && trans->failed && !is_rollback;
    apr_pool_cleanup_kill(trans->p, trans, transaction_cleanup);
    trans->handle = NULL;
    handle->trans = NULL;
    if (!pgpool_dbd_handle_is_held(handle))
        return !is_rollback;
    return trans->failed || is_rollback ? pgpool_dbd_command(handle, "ROLLBACK")
                                        : transaction_commit(handle);
}

int pgpool_dbd_transaction_mode_get(apr_dbd_transaction_t *trans)
{
    return trans ? trans->mode : APR_DBD_TRANSACTION_COMMIT;
}

int pgpool_dbd_transaction_mode_set(apr_dbd_transaction_t *trans, int mode)
{
    if (!trans)
        return APR_DBD_TRANSACTION_COMMIT;
    trans->mode = mode & (APR_DBD_TRANSACTION_ROLLBACK | APR_DBD_TRANSACTION_IGNORE_ERRORS);
    return trans->mode;
}
