/* The scanner of a PgPoolQuery's SQL: if it finds one statement, it finds the same when it
 * scans that statement without the rest. */
#include "fuzz.h"

#include "../mod_pgpool_query_sql.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apr_pool_t *p = fuzz_pool();
    const char *text = apr_pstrmemdup(p, (const char *)data, size);
    const pgpool_sql found = pgpool_sql_scan(text);

    if (found.wrong) {
        PROMISE(found.at >= text && found.at < text + strlen(text));
    }
    else {
        const char *statement = apr_pstrmemdup(p, text, found.length);
        const pgpool_sql again = pgpool_sql_scan(statement);

        PROMISE(found.length <= strlen(text));
        PROMISE(!again.wrong && again.length == found.length && again.params == found.params);
        PROMISE(found.params >= 0 && found.params <= PGPOOL_SQL_PARAMS_MOST);
    }
    apr_pool_destroy(p);
    return 0;
}
