/*
 * apr_dbd's type marks: parameters from C to libpq, values from libpq to C
 * (mod_pgpool_dbd_driver.h).
 */
#include "mod_pgpool_dbd_driver.h"

#include <limits.h>
#include <stdlib.h>
#include <apr_buckets.h>
#include <apr_strings.h>

/* OIDs of pg_type that never change; server/catalog/pg_type_d.h is no header of libpq's. */
enum {
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_DATE = 1082,
    OID_TIME = 1083,
    OID_TIMESTAMP = 1114,
    OID_TIMESTAMPTZ = 1184,
    OID_NUMERIC = 1700
};

/* A text without a type takes that of the column it is compared with.  An unsigned type may
 * exceed the server's signed one of the same size. */
static Oid oid_of(apr_dbd_type_e type)
{
    switch (type) {
    case APR_DBD_TYPE_TINY:
    case APR_DBD_TYPE_UTINY:
    case APR_DBD_TYPE_SHORT:
        return OID_INT2;
    case APR_DBD_TYPE_USHORT:
    case APR_DBD_TYPE_INT:
        return OID_INT4;
    case APR_DBD_TYPE_UINT:
    case APR_DBD_TYPE_LONG:
    case APR_DBD_TYPE_LONGLONG:
        return OID_INT8;
    case APR_DBD_TYPE_ULONG:
    case APR_DBD_TYPE_ULONGLONG:
        return OID_NUMERIC;
    case APR_DBD_TYPE_FLOAT:
        return OID_FLOAT4;
    case APR_DBD_TYPE_DOUBLE:
        return OID_FLOAT8;
    case APR_DBD_TYPE_TIME:
        return OID_TIME;
    case APR_DBD_TYPE_DATE:
        return OID_DATE;
    case APR_DBD_TYPE_DATETIME:
    case APR_DBD_TYPE_TIMESTAMP:
        return OID_TIMESTAMP;
    case APR_DBD_TYPE_ZTIMESTAMP:
        return OID_TIMESTAMPTZ;
    case APR_DBD_TYPE_BLOB:
        return OID_BYTEA;
    default:
        return 0;
    }
}

const Oid *pgpool_dbd_type_oids(apr_pool_t *p, const apr_dbd_type_e *types, int n)
{
    Oid *oids = apr_palloc(p, n * sizeof(*oids));
    int i;

    for (i = 0; i < n; i++)
        oids[i] = oid_of(types[i]);
    return oids;
}

/* --- parameters ------------------------------------------------------------- */

static bool is_lob(apr_dbd_type_e type)
{
    return type == APR_DBD_TYPE_BLOB || type == APR_DBD_TYPE_CLOB;
}

/* The text of a C value. */
static const char *native_text(apr_pool_t *p, apr_dbd_type_e type, const void *value)
{
    switch (type) {
    case APR_DBD_TYPE_TINY:
        return apr_itoa(p, *(const signed char *)value);
    case APR_DBD_TYPE_UTINY:
        return apr_itoa(p, *(const unsigned char *)value);
    case APR_DBD_TYPE_SHORT:
        return apr_itoa(p, *(const short *)value);
    case APR_DBD_TYPE_USHORT:
        return apr_itoa(p, *(const unsigned short *)value);
    case APR_DBD_TYPE_INT:
        return apr_itoa(p, *(const int *)value);
    case APR_DBD_TYPE_UINT:
        return apr_psprintf(p, "%u", *(const unsigned *)value);
    case APR_DBD_TYPE_LONG:
        return apr_ltoa(p, *(const long *)value);
    case APR_DBD_TYPE_ULONG:
        return apr_psprintf(p, "%lu", *(const unsigned long *)value);
    case APR_DBD_TYPE_LONGLONG:
        return apr_psprintf(p, "%" APR_INT64_T_FMT, *(const apr_int64_t *)value);
    case APR_DBD_TYPE_ULONGLONG:
        return apr_psprintf(p, "%" APR_UINT64_T_FMT, *(const apr_uint64_t *)value);
    case APR_DBD_TYPE_FLOAT:
        return apr_psprintf(p, "%.9g", (double)*(const float *)value);
    case APR_DBD_TYPE_DOUBLE:
        return apr_psprintf(p, "%.17g", *(const double *)value);
    case APR_DBD_TYPE_NULL:
        return NULL;
    default:
        return value;
    }
}

/* A LOB's arguments: payload, length, and two that only Oracle knows.  Without a length the
 * payload ends with its NUL. */
static bool lob_bind(const void *const *args, bool is_binary, int *length)
{
    apr_uint64_t n;

    if (!args[1])
        n = strlen(args[0]);
    else
        n = is_binary ? *(const apr_size_t *)args[1]
                      : (apr_uint64_t)apr_strtoi64(args[1], NULL, 10);
    *length = (int)n;
    return n <= INT_MAX;
}

bool pgpool_dbd_params_bind(apr_pool_t *p, const apr_dbd_prepared_t *prepared,
                            const void *const *args, bool is_binary, pgpool_params *params)
{
    const int n = prepared->statement.nparams;
    const char **values = apr_pcalloc(p, n * sizeof(*values));
    int *lengths = apr_pcalloc(p, n * sizeof(*lengths));
    int *formats = apr_pcalloc(p, n * sizeof(*formats));
    int i;

    for (i = 0; i < n; i++) {
        const apr_dbd_type_e type = prepared->types[i];

        if (*args) {
            formats[i] = is_lob(type);
            if (is_lob(type) && !lob_bind(args, is_binary, &lengths[i]))
                return false;
            values[i] = is_binary ? native_text(p, type, *args) : *args;
        }
        args += is_lob(type) ? 4 : 1;
    }
    *params = (pgpool_params){.values = values, .lengths = lengths, .formats = formats};
    return true;
}

/* --- values ----------------------------------------------------------------- */

static apr_status_t number_get(const char *text, apr_dbd_type_e type, void *data)
{
    switch (type) {
    case APR_DBD_TYPE_TINY:
        *(signed char *)data = atoi(text);
        break;
    case APR_DBD_TYPE_UTINY:
        *(unsigned char *)data = atoi(text);
        break;
    case APR_DBD_TYPE_SHORT:
        *(short *)data = atoi(text);
        break;
    case APR_DBD_TYPE_USHORT:
        *(unsigned short *)data = atoi(text);
        break;
    case APR_DBD_TYPE_INT:
        *(int *)data = atoi(text);
        break;
    case APR_DBD_TYPE_UINT:
        *(unsigned *)data = strtoul(text, NULL, 10);
        break;
    case APR_DBD_TYPE_LONG:
        *(long *)data = strtol(text, NULL, 10);
        break;
    case APR_DBD_TYPE_ULONG:
        *(unsigned long *)data = strtoul(text, NULL, 10);
        break;
    case APR_DBD_TYPE_LONGLONG:
        *(apr_int64_t *)data = strtoll(text, NULL, 10);
        break;
    case APR_DBD_TYPE_ULONGLONG:
        *(apr_uint64_t *)data = strtoull(text, NULL, 10);
        break;
    case APR_DBD_TYPE_FLOAT:
        *(float *)data = strtof(text, NULL);
        break;
    case APR_DBD_TYPE_DOUBLE:
        *(double *)data = strtod(text, NULL);
        break;
    default:
        return APR_EGENERAL;
    }
    return APR_SUCCESS;
}

/* The bytes of a bytea, which the server has sent as a text, or of a text. */
static apr_status_t lob_get(const apr_dbd_row_t *row, int column, apr_bucket_brigade *bb)
{
    const char *bytes = PQgetvalue(row->res->result, row->n, column);
    size_t length = PQgetlength(row->res->result, row->n, column);
    unsigned char *plain = NULL;

    if (PQftype(row->res->result, column) == OID_BYTEA) {
        plain = PQunescapeBytea((const unsigned char *)bytes, &length);
        if (!plain)
            return APR_ENOMEM;
        bytes = apr_pmemdup(row->res->p, plain, length);
        PQfreemem(plain);
    }
    APR_BRIGADE_INSERT_TAIL(
        bb, apr_bucket_pool_create(bytes, length, row->res->p, bb->bucket_alloc));
    return APR_SUCCESS;
}

apr_status_t pgpool_dbd_datum_get(const apr_dbd_row_t *row, int column, apr_dbd_type_e type,
                                  void *data)
{
    const PGresult *result = row->res->result;

    if (column < 0 || column >= PQnfields(result))
        return APR_EGENERAL;
    if (PQgetisnull(result, row->n, column))
        return APR_ENOENT;
    switch (type) {
    case APR_DBD_TYPE_STRING:
    case APR_DBD_TYPE_TEXT:
    case APR_DBD_TYPE_TIME:
    case APR_DBD_TYPE_DATE:
    case APR_DBD_TYPE_DATETIME:
    case APR_DBD_TYPE_TIMESTAMP:
    case APR_DBD_TYPE_ZTIMESTAMP:
        *(char **)data = PQgetvalue(result, row->n, column);
        return APR_SUCCESS;
    case APR_DBD_TYPE_BLOB:
    case APR_DBD_TYPE_CLOB:
        return lob_get(row, column, data);
    case APR_DBD_TYPE_NULL:
        *(void **)data = NULL;
        return APR_SUCCESS;
    default:
        return number_get(PQgetvalue(result, row->n, column), type, data);
    }
}
