/*
 * The table of HTTP statuses by SQLSTATE.
 */
#include "mod_pgpool_sqlstate.h"

#include <stdlib.h>
#include <string.h>
#include <httpd.h>

/* The first prefix that fits counts. */
static const struct {
    const char *prefix;
    int status;
} statuses[] = {
    /* The values of the request are wrong. */
    {"22", HTTP_BAD_REQUEST},    /* data exception */
    {"23502", HTTP_BAD_REQUEST}, /* not_null_violation */
    {"23514", HTTP_BAD_REQUEST}, /* check_violation */
    {"P0001", HTTP_BAD_REQUEST}, /* raise_exception: a RAISE without a code */
    /* The values contradict rows that exist. */
    {"23503", HTTP_CONFLICT}, /* foreign_key_violation */
    {"23505", HTTP_CONFLICT}, /* unique_violation */
    {"23P01", HTTP_CONFLICT}, /* exclusion_violation */
    /* The role lacks the right. */
    {"42501", HTTP_FORBIDDEN}, /* insufficient_privilege */
    /* The same request may succeed later. */
    {"40001", HTTP_SERVICE_UNAVAILABLE}, /* serialization_failure */
    {"40P01", HTTP_SERVICE_UNAVAILABLE}, /* deadlock_detected */
    {"25006", HTTP_SERVICE_UNAVAILABLE}, /* read_only_sql_transaction: a standby */
    {"08", HTTP_SERVICE_UNAVAILABLE},    /* connection exception */
    {"53", HTTP_SERVICE_UNAVAILABLE},    /* insufficient resources */
    {"57P0", HTTP_SERVICE_UNAVAILABLE},  /* the server stops, or starts up */
    {"57014", HTTP_GATEWAY_TIME_OUT},    /* query_canceled, as by statement_timeout */
};

/* PTxyz is for functions that choose the status: RAISE ... USING ERRCODE = 'PT402'. */
static int chosen_status(const char *sqlstate)
{
    const char *digits = sqlstate + 2;
    const int status = atoi(digits);

    return strspn(digits, "0123456789") == 3 && !digits[3] && status >= 400 && status <= 599
               ? status
               : HTTP_INTERNAL_SERVER_ERROR;
}

int pgpool_sqlstate_http(const char *sqlstate)
{
    if (!strncmp(sqlstate, "PT", 2))
        return chosen_status(sqlstate);
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (!strncmp(sqlstate, statuses[i].prefix, strlen(statuses[i].prefix)))
            return statuses[i].status;
    return HTTP_INTERNAL_SERVER_ERROR;
}
