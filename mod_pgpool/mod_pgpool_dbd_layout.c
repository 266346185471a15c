/*
 * Proves that apr-util agrees with our declaration of its driver (mod_pgpool_dbd_driver.h).
 *
 * A sentinel is a driver whose functions say which member they are.  Each public wrapper of
 * apr_dbd is called with it once, and has to reach its own member.  The wrappers pass their
 * arguments through unseen, so the address of the answer travels as the handle, result, row or
 * statement.
 */
#include "mod_pgpool_dbd_driver.h"

#include <apu_version.h>

typedef struct {
    const char *reached;
} answer;

static void *answer_set(const void *carrier, const char *member)
{
    answer *a = (answer *)carrier;

    a->reached = member;
    return a;
}

static void *s_native_handle(apr_dbd_t *h)
{
    return answer_set(h, "native_handle");
}
static apr_dbd_t *s_open(apr_pool_t *p, const char *params, const char **error)
{
    return answer_set(params, "open");
}
static apr_status_t s_check_conn(apr_pool_t *p, apr_dbd_t *h)
{
    answer *a = (answer *)h;

    /* apr_dbd_open_ex() calls it, too. */
    if (!a->reached)
        answer_set(h, "check_conn");
    return APR_SUCCESS;
}
static apr_status_t s_close(apr_dbd_t *h)
{
    answer_set(h, "close");
    return APR_SUCCESS;
}
static int s_set_dbname(apr_pool_t *p, apr_dbd_t *h, const char *name)
{
    return !answer_set(h, "set_dbname");
}
static int s_start_transaction(apr_pool_t *p, apr_dbd_t *h, apr_dbd_transaction_t **trans)
{
    return !answer_set(h, "transaction_start");
}
static int s_end_transaction(apr_dbd_transaction_t *trans)
{
    return !answer_set(trans, "transaction_end");
}
static int s_query(apr_dbd_t *h, int *nrows, const char *sql)
{
    return !answer_set(h, "query");
}
static int s_select(apr_pool_t *p, apr_dbd_t *h, apr_dbd_results_t **res, const char *sql,
                    int random)
{
    return !answer_set(h, "select");
}
static int s_num_cols(apr_dbd_results_t *res)
{
    return !answer_set(res, "num_cols");
}
static int s_num_tuples(apr_dbd_results_t *res)
{
    return !answer_set(res, "num_tuples");
}
static int s_get_row(apr_pool_t *p, apr_dbd_results_t *res, apr_dbd_row_t **row, int number)
{
    return !answer_set(res, "get_row");
}
static const char *s_get_entry(const apr_dbd_row_t *row, int column)
{
    return answer_set(row, "get_entry");
}
static const char *s_error(apr_dbd_t *h, int number)
{
    return answer_set(h, "error");
}
static const char *s_escape(apr_pool_t *p, const char *text, apr_dbd_t *h)
{
    return answer_set(h, "escape");
}
static int s_prepare(apr_pool_t *p, apr_dbd_t *h, const char *sql, const char *label, int nargs,
                     int nvals, apr_dbd_type_e *types, apr_dbd_prepared_t **prepared)
{
    /* apr_dbd_prepare() has translated the marks by the driver's pformat. */
    const bool is_right = !strcmp(sql, "a $1 b $2 %") && nargs == 2 && nvals == 5 &&
                          types[0] == APR_DBD_TYPE_STRING && types[1] == APR_DBD_TYPE_BLOB;

    return !answer_set(h, is_right ? "prepare" : "pformat");
}
static int s_pvquery(apr_pool_t *p, apr_dbd_t *h, int *nrows, apr_dbd_prepared_t *prepared,
                     va_list args)
{
    return !answer_set(h, "pvquery");
}
static int s_pvselect(apr_pool_t *p, apr_dbd_t *h, apr_dbd_results_t **res,
                      apr_dbd_prepared_t *prepared, int random, va_list args)
{
    return !answer_set(h, "pvselect");
}
static int s_pquery(apr_pool_t *p, apr_dbd_t *h, int *nrows, apr_dbd_prepared_t *prepared,
                    const char **args)
{
    return !answer_set(h, "pquery");
}
static int s_pselect(apr_pool_t *p, apr_dbd_t *h, apr_dbd_results_t **res,
                     apr_dbd_prepared_t *prepared, int random, const char **args)
{
    return !answer_set(h, "pselect");
}
static const char *s_get_name(const apr_dbd_results_t *res, int column)
{
    return answer_set(res, "get_name");
}
static int s_mode_get(apr_dbd_transaction_t *trans)
{
    return !answer_set(trans, "transaction_mode_get");
}
static int s_mode_set(apr_dbd_transaction_t *trans, int mode)
{
    return !answer_set(trans, "transaction_mode_set");
}
static int s_pvbquery(apr_pool_t *p, apr_dbd_t *h, int *nrows, apr_dbd_prepared_t *prepared,
                      va_list args)
{
    return !answer_set(h, "pvbquery");
}
static int s_pvbselect(apr_pool_t *p, apr_dbd_t *h, apr_dbd_results_t **res,
                       apr_dbd_prepared_t *prepared, int random, va_list args)
{
    return !answer_set(h, "pvbselect");
}
static int s_pbquery(apr_pool_t *p, apr_dbd_t *h, int *nrows, apr_dbd_prepared_t *prepared,
                     const void **args)
{
    return !answer_set(h, "pbquery");
}
static int s_pbselect(apr_pool_t *p, apr_dbd_t *h, apr_dbd_results_t **res,
                      apr_dbd_prepared_t *prepared, int random, const void **args)
{
    return !answer_set(h, "pbselect");
}
static apr_status_t s_datum_get(const apr_dbd_row_t *row, int column, apr_dbd_type_e type,
                                void *data)
{
    answer_set(row, "datum_get");
    return APR_SUCCESS;
}

static const apr_dbd_driver_t sentinel = {
    .name = "sentinel",
    .native_handle = s_native_handle,
    .open = s_open,
    .check_conn = s_check_conn,
    .close = s_close,
    .set_dbname = s_set_dbname,
    .start_transaction = s_start_transaction,
    .end_transaction = s_end_transaction,
    .query = s_query,
    .select = s_select,
    .num_cols = s_num_cols,
    .num_tuples = s_num_tuples,
    .get_row = s_get_row,
    .get_entry = s_get_entry,
    .error = s_error,
    .escape = s_escape,
    .prepare = s_prepare,
    .pvquery = s_pvquery,
    .pvselect = s_pvselect,
    .pquery = s_pquery,
    .pselect = s_pselect,
    .get_name = s_get_name,
    .transaction_mode_get = s_mode_get,
    .transaction_mode_set = s_mode_set,
    .pformat = "$%d",
    .pvbquery = s_pvbquery,
    .pvbselect = s_pvbselect,
    .pbquery = s_pbquery,
    .pbselect = s_pbselect,
    .datum_get = s_datum_get,
};

/* Call one wrapper; return from the function if it does not reach its member. */
#define EXPECT(member, call)                                                                   \
    do {                                                                                       \
        a.reached = NULL;                                                                      \
        (void)(call);                                                                          \
        if (!a.reached || strcmp(a.reached, member) != 0)                                      \
            return "apr_dbd_" member;                                                          \
    } while (0)

static const char *connection_check(apr_pool_t *p)
{
    const apr_dbd_driver_t *d = &sentinel;
    answer a;
    apr_dbd_t *h = (apr_dbd_t *)&a, *opened;
    apr_dbd_transaction_t *t = (apr_dbd_transaction_t *)&a, *none = NULL;

    if (strcmp(apr_dbd_name(d), "sentinel") != 0)
        return "apr_dbd_name";
    EXPECT("native_handle", apr_dbd_native_handle(d, h));
    EXPECT("open", apr_dbd_open_ex(d, p, (const char *)&a, &opened, NULL));
    EXPECT("check_conn", apr_dbd_check_conn(d, p, h));
    EXPECT("close", apr_dbd_close(d, h));
    EXPECT("set_dbname", apr_dbd_set_dbname(d, p, h, ""));
    EXPECT("transaction_start", apr_dbd_transaction_start(d, p, h, &none));
    EXPECT("transaction_end", apr_dbd_transaction_end(d, p, t));
    EXPECT("transaction_mode_get", apr_dbd_transaction_mode_get(d, t));
    EXPECT("transaction_mode_set", apr_dbd_transaction_mode_set(d, t, 0));
    EXPECT("error", apr_dbd_error(d, h, 0));
    EXPECT("escape", apr_dbd_escape(d, p, "", h));
    return NULL;
}

static const char *statements_check(apr_pool_t *p)
{
    const apr_dbd_driver_t *d = &sentinel;
    answer a;
    apr_dbd_t *h = (apr_dbd_t *)&a;
    apr_dbd_results_t *res = NULL;
    apr_dbd_prepared_t *st = NULL;
    int n;

    EXPECT("query", apr_dbd_query(d, h, &n, ""));
    EXPECT("select", apr_dbd_select(d, p, h, &res, "", 0));
    EXPECT("prepare", apr_dbd_prepare(d, p, h, "a %s b %pDb %%", NULL, &st));
    EXPECT("pvquery", apr_dbd_pvquery(d, p, h, &n, st, NULL));
    EXPECT("pvselect", apr_dbd_pvselect(d, p, h, &res, st, 0, NULL));
    EXPECT("pquery", apr_dbd_pquery(d, p, h, &n, st, 0, NULL));
    EXPECT("pselect", apr_dbd_pselect(d, p, h, &res, st, 0, 0, NULL));
    EXPECT("pvbquery", apr_dbd_pvbquery(d, p, h, &n, st, NULL));
    EXPECT("pvbselect", apr_dbd_pvbselect(d, p, h, &res, st, 0, NULL));
    EXPECT("pbquery", apr_dbd_pbquery(d, p, h, &n, st, NULL));
    EXPECT("pbselect", apr_dbd_pbselect(d, p, h, &res, st, 0, NULL));
    return NULL;
}

static const char *results_check(apr_pool_t *p)
{
    const apr_dbd_driver_t *d = &sentinel;
    answer a;
    apr_dbd_results_t *res = (apr_dbd_results_t *)&a;
    apr_dbd_row_t *row = (apr_dbd_row_t *)&a, *got = NULL;

    EXPECT("num_cols", apr_dbd_num_cols(d, res));
    EXPECT("num_tuples", apr_dbd_num_tuples(d, res));
    EXPECT("get_row", apr_dbd_get_row(d, p, res, &got, -1));
    EXPECT("get_name", apr_dbd_get_name(d, res, 0));
    EXPECT("get_entry", apr_dbd_get_entry(d, row, 0));
    EXPECT("datum_get", apr_dbd_datum_get(d, row, 0, APR_DBD_TYPE_NONE, NULL));
    return NULL;
}

const char *pgpool_dbd_layout_check(apr_pool_t *p)
{
    const char *wrong;
    apr_version_t version;

    apu_version(&version);
    if (version.major != 1)
        return "major version";
    wrong = connection_check(p);
    if (!wrong)
        wrong = statements_check(p);
    return wrong ? wrong : results_check(p);
}
