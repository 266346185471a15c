/*
 * Makes the body of an answer from rows, and sends it (mod_pgpool_query_output.h).
 */
#include "mod_pgpool_query_output.h"

#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include <http_protocol.h>
#include <util_filter.h>

#include "mod_pgpool_query_spool.h"

/* The type's number in every PostgreSQL. */
enum { BYTEA = 17 };

struct pgpool_output {
    request_rec *r;
    const struct format *format;
    pgpool_spool *spool;
    bool etag;
    bool begun; /* the first result has come */
    bool found; /* a row has come, with a value for those formats that ask for one */
    bool bytea; /* the value is a bytea */
    const char *error;
};

/* --- rows ------------------------------------------------------------------- */

static apr_status_t bytes_put(pgpool_output *output, const char *data, apr_size_t length)
{
    return pgpool_spool_write(output->spool, data, length);
}

static apr_status_t text_put(pgpool_output *output, const char *text)
{
    return bytes_put(output, text, strlen(text));
}

static apr_status_t value_put(pgpool_output *output, const PGresult *rows, int row)
{
    return bytes_put(output, PQgetvalue(rows, row, 0), PQgetlength(rows, row, 0));
}

/* The bytes between the rows are those of json_agg(). */
static apr_status_t array_row(pgpool_output *output, const PGresult *rows, int row)
{
    apr_status_t rv = text_put(output, output->found ? ", \n " : "[");

    return rv == APR_SUCCESS ? value_put(output, rows, row) : rv;
}

static apr_status_t array_end(pgpool_output *output)
{
    return text_put(output, output->found ? "]" : "[]");
}

/* A value of type json may contain line ends, though only between its tokens, where a blank
 * means the same. */
static apr_status_t lines_row(pgpool_output *output, const PGresult *rows, int row)
{
    const char *at = PQgetvalue(rows, row, 0);
    apr_status_t rv = APR_SUCCESS;

    while (*at && rv == APR_SUCCESS) {
        const apr_size_t part = strcspn(at, "\r\n");

        rv = bytes_put(output, at, part);
        at += part;
        if (*at && rv == APR_SUCCESS) {
            rv = bytes_put(output, " ", 1);
            at++;
        }
    }
    return rv == APR_SUCCESS ? bytes_put(output, "\n", 1) : rv;
}

/* A bytea comes as text, in either of the two forms that the server has for it. */
static apr_status_t bytea_value(pgpool_output *output, const PGresult *rows, int row)
{
    size_t length;
    unsigned char *bytes = PQunescapeBytea((const unsigned char *)PQgetvalue(rows, row, 0),
                                           &length);
    apr_status_t rv;

    if (!bytes) {
        output->error = "no memory for the value";
        return APR_EGENERAL;
    }
    rv = bytes_put(output, (const char *)bytes, length);
    PQfreemem(bytes);
    return rv;
}

static apr_status_t value_row(pgpool_output *output, const PGresult *rows, int row)
{
    if (!PQnfields(rows)) {
        output->error = "PgPoolQueryFormat value: the row has no column";
        return APR_EGENERAL;
    }
    output->bytea = PQftype(rows, 0) == BYTEA;
    return output->bytea ? bytea_value(output, rows, row) : value_put(output, rows, row);
}

/* The quotes tell an empty text from a null. */
static apr_status_t csv_field(pgpool_output *output, const char *text)
{
    apr_status_t rv;

    if (*text && !strpbrk(text, "\",\r\n"))
        return text_put(output, text);
    rv = bytes_put(output, "\"", 1);
    while (*text && rv == APR_SUCCESS) {
        const apr_size_t part = strcspn(text, "\"");
        const bool quote = text[part];

        rv = bytes_put(output, text, part + quote);
        if (quote && rv == APR_SUCCESS)
            rv = bytes_put(output, "\"", 1);
        text += part + quote;
    }
    return rv == APR_SUCCESS ? bytes_put(output, "\"", 1) : rv;
}

/* row: -1 for the header */
static apr_status_t csv_line(pgpool_output *output, const PGresult *rows, int row)
{
    apr_status_t rv = APR_SUCCESS;

    for (int i = 0; i < PQnfields(rows) && rv == APR_SUCCESS; i++) {
        if (i)
            rv = bytes_put(output, ",", 1);
        if (rv == APR_SUCCESS && row < 0)
            rv = csv_field(output, PQfname(rows, i));
        else if (rv == APR_SUCCESS && !PQgetisnull(rows, row, i))
            rv = csv_field(output, PQgetvalue(rows, row, i));
    }
    return rv == APR_SUCCESS ? bytes_put(output, "\r\n", 2) : rv;
}

static apr_status_t csv_begin(pgpool_output *output, const PGresult *rows)
{
    return csv_line(output, rows, -1);
}

/* --- formats ---------------------------------------------------------------- */

/* The operator's SQL stands at the top level of WITH, where PostgreSQL allows it to write. `.*`
 * makes the name the row even if there is a column named pgpool_query.  The function's name has
 * its schema, since search_path may begin with a schema in which anybody may create. */
#define JSON_ROWS "SELECT pg_catalog.row_to_json(pgpool_query.*) FROM pgpool_query"

static const struct format {
    const char *name, *select, *type;
    apr_status_t (*begin)(pgpool_output *output, const PGresult *rows);
    apr_status_t (*row)(pgpool_output *output, const PGresult *rows, int row);
    apr_status_t (*end)(pgpool_output *output);
    bool wants_row;
} formats[] = {
    [PGPOOL_FORMAT_ARRAY] = {"array", JSON_ROWS, "application/json", NULL, array_row,
                             array_end},
    [PGPOOL_FORMAT_OBJECT] = {"object", "SELECT (" JSON_ROWS ")", "application/json", NULL,
                              value_put, NULL, true},
    [PGPOOL_FORMAT_VALUE] = {"value", "SELECT pgpool_query.* FROM pgpool_query LIMIT 1",
                             "text/plain; charset=utf-8", NULL, value_row, NULL, true},
    [PGPOOL_FORMAT_LINES] = {"lines", JSON_ROWS, "application/x-ndjson", NULL, lines_row, NULL},
    [PGPOOL_FORMAT_CSV] = {"csv", "SELECT pgpool_query.* FROM pgpool_query",
                           "text/csv; charset=utf-8", csv_begin, csv_line, NULL},
};

pgpool_format pgpool_format_find(const char *name)
{
    pgpool_format format = 0;

    while (format < PGPOOL_FORMATS && strcasecmp(formats[format].name, name) != 0)
        format++;
    return format;
}

const char *pgpool_output_sql(apr_pool_t *p, pgpool_format format, const char *sql,
                              apr_size_t length)
{
    return apr_pstrcat(p, "WITH pgpool_query AS (\n", apr_pstrmemdup(p, sql, length), "\n) ",
                       formats[format].select, NULL);
}

pgpool_output *pgpool_output_make(request_rec *r, pgpool_format format, apr_off_t most,
                                  bool etag)
{
    pgpool_output *output = apr_pcalloc(r->pool, sizeof(*output));

    output->r = r;
    output->format = &formats[format];
    output->spool = pgpool_spool_make(r->pool, most, etag);
    output->etag = etag;
    return output;
}

apr_status_t pgpool_output_rows(void *baton, const PGresult *rows)
{
    pgpool_output *output = baton;
    const struct format *format = output->format;
    apr_status_t rv = APR_SUCCESS;

    if (!output->begun && format->begin)
        rv = format->begin(output, rows);
    output->begun = true;
    for (int row = 0; row < PQntuples(rows) && rv == APR_SUCCESS; row++) {
        rv = format->row(output, rows, row);
        if (!format->wants_row || !PQgetisnull(rows, row, 0))
            output->found = true;
    }
    return rv;
}

apr_status_t pgpool_output_finish(pgpool_output *output)
{
    apr_status_t rv = output->format->end ? output->format->end(output) : APR_SUCCESS;

    return rv == APR_SUCCESS ? pgpool_spool_finish(output->spool) : rv;
}

const char *pgpool_output_error(const pgpool_output *output)
{
    return output->error ? output->error : pgpool_spool_error(output->spool);
}

bool pgpool_output_is_none(const pgpool_output *output)
{
    return output->format->wants_row && !output->found;
}

/* --- response --------------------------------------------------------------- */

static const char *default_type(const pgpool_output *output)
{
    return output->bytea ? "application/octet-stream" : output->format->type;
}

int pgpool_output_send(pgpool_output *output, const char *type)
{
    request_rec *r = output->r;
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    apr_bucket_brigade *brigade = apr_brigade_create(r->pool, alloc);
    apr_status_t rv;
    int status;

    ap_set_content_type(r, type && *type ? type : default_type(output));
    if (output->etag) {
        apr_table_setn(r->headers_out, "ETag",
                       apr_psprintf(r->pool, "\"%s\"", pgpool_spool_hash(output->spool)));
        if ((status = ap_meets_conditions(r)) != OK)
            return status;
    }
    ap_set_content_length(r, pgpool_spool_length(output->spool));
    pgpool_spool_insert(output->spool, brigade);
    APR_BRIGADE_INSERT_TAIL(brigade, apr_bucket_eos_create(alloc));
    rv = ap_pass_brigade(r->output_filters, brigade);
    return rv == APR_SUCCESS || r->connection->aborted ? OK : AP_FILTER_ERROR;
}
