/* Checks and prints connection strings without giving away a secret. */

#include "pgp_conninfo.h"

#include <stdbool.h>
#include <string.h>
#include <apr_strings.h>

/* A complaint of libpq's without the text between its first and its last quote: libpq quotes
 * pieces of the string as they are, with the quotes in them. */
static const char *complaint_blanked(apr_pool_t *p, const char *text)
{
    const char *first = strchr(text, '"'), *last = strrchr(text, '"');

    if (!first)
        return apr_pstrmemdup(p, text, strcspn(text, "\n"));
    return apr_pstrcat(p, apr_pstrmemdup(p, text, first - text), "\"...\"",
                       apr_pstrmemdup(p, last + 1, strcspn(last + 1, "\n")), NULL);
}

static bool is_given(const PQconninfoOption *o, const char *keyword)
{
    return o->val && !strcmp(o->keyword, keyword);
}

/* Whether a host has a "@" within its name; at the start it means an abstract socket. */
static bool has_at_sign(const char *hosts)
{
    const char *at = strchr(hosts, '@');

    while (at && (at == hosts || at[-1] == ','))
        at = strchr(at + 1, '@');
    return at != NULL;
}

/* Complain of pieces of a password that libpq has misread, since a failed connect shows host,
 * port and database.  In a URI's password, libpq takes the text after a "@" for the host, the
 * text before a "/" for the port, and the text after that for the database. */
static const char *misread_complaint(const PQconninfoOption *all, bool is_uri)
{
    const PQconninfoOption *o;

    for (o = all; o->keyword; o++) {
        if (is_given(o, "host") && has_at_sign(o->val))
            return "the host has a \"@\" in it; within a URI's password write it as %40";
        if (is_given(o, "port") && o->val[strspn(o->val, "0123456789, ")])
            return "the port is no number; within a URI's password write \"/\" as %2F";
    }
    for (o = all; o->keyword; o++)
        if (is_given(o, "dbname") && (strchr(o->val, '=') || (is_uri && strchr(o->val, '@'))))
            return "the dbname looks like a connection string or a piece of one; within a "
                   "URI's password write \"/\" as %2F and \"@\" as %40";
    return NULL;
}

/* Complain of another encoding than UTF-8.  A missing or empty value leaves it at UTF-8. */
static const char *encoding_complaint(const PQconninfoOption *all)
{
    const PQconninfoOption *o;

    for (o = all; o->keyword; o++)
        if (is_given(o, "client_encoding") && *o->val &&
            pg_char_to_encoding(o->val) != pg_char_to_encoding("UTF8"))
            return "client_encoding cannot be other than UTF8, since the text of requests and "
                   "of the configuration is UTF-8; leave it out: the server converts to and "
                   "from the database's encoding";
    return NULL;
}

const char *pgp_conninfo_check(apr_pool_t *p, const char *conninfo)
{
    char *complaint = NULL;
    const char *text;
    PQconninfoOption *options = PQconninfoParse(conninfo, &complaint);

    if (options) {
        text = misread_complaint(options, strstr(conninfo, "://") != NULL);
        if (!text)
            text = encoding_complaint(options);
        PQconninfoFree(options);
        return text;
    }
    text = apr_pstrcat(
        p, "libpq says: ", complaint ? complaint_blanked(p, complaint) : "out of memory",
        " (quoted text is left out, it may be secret)", NULL);
    PQfreemem(complaint);
    return text;
}

/* A value as libpq reads it: quoted where it is empty, or holds blanks or quotes. */
static const char *value_quoted(apr_pool_t *p, const char *value)
{
    char *out, *end;

    if (*value && !strpbrk(value, " '\\\t\n\v\f\r"))
        return value;
    end = out = apr_palloc(p, strlen(value) * 2 + 3);
    *end++ = '\'';
    for (; *value; value++) {
        if (*value == '\'' || *value == '\\')
            *end++ = '\\';
        *end++ = *value;
    }
    *end++ = '\'';
    *end = '\0';
    return out;
}

/* Some secrets of libpq 18 (oauth_client_secret) are marked as debug options only, "D". */
static bool is_secret(const PQconninfoOption *o)
{
    return strpbrk(o->dispchar, "*D") != NULL;
}

/* Print each parameter that is given as key=value.  secret: stands for the value of a secret
 * one; NULL leaves such parameters out. */
static const char *pairs_print(apr_pool_t *p, const char *conninfo, const char *secret)
{
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL), *o;
    const char *text = "";

    if (!options)
        return "***";
    for (o = options; o->keyword; o++)
        if (o->val && (secret || !is_secret(o)))
            text = apr_pstrcat(p, text, *text ? " " : "", o->keyword, "=",
                               is_secret(o) ? secret : value_quoted(p, o->val), NULL);
    PQconninfoFree(options);
    return text;
}

const char *pgp_conninfo_masked(apr_pool_t *p, const char *conninfo)
{
    return pairs_print(p, conninfo, "***");
}

const char *pgp_conninfo_identity(apr_pool_t *p, const char *conninfo)
{
    return pairs_print(p, conninfo, NULL);
}

const char *pgp_conninfo_value(const PQconninfoOption *options, const char *keyword)
{
    const PQconninfoOption *o;

    for (o = options; o && o->keyword; o++)
        if (is_given(o, keyword) && *o->val)
            return o->val;
    return NULL;
}

/* The value of the first keyword, else of the second one (may be NULL), in the string; then in
 * libpq's defaults. */
static const char *value_first(const PQconninfoOption *own, const PQconninfoOption *defaults,
                               const char *first, const char *second, const char *otherwise)
{
    const char *value = pgp_conninfo_value(own, first);

    if (!value && second)
        value = pgp_conninfo_value(own, second);
    if (!value)
        value = pgp_conninfo_value(defaults, first);
    if (!value && second)
        value = pgp_conninfo_value(defaults, second);
    return value ? value : otherwise;
}

const char *pgp_conninfo_server(apr_pool_t *p, const char *conninfo)
{
    PQconninfoOption *own = PQconninfoParse(conninfo, NULL), *defaults = PQconndefaults();
    const char *service = pgp_conninfo_value(own, "service");
    const char *text = service && !pgp_conninfo_value(own, "host") &&
                               !pgp_conninfo_value(own, "hostaddr")
                           ? apr_pstrcat(p, "service=", service, NULL)
                           : apr_pstrcat(
                                 p, value_first(own, defaults, "hostaddr", "host", "local"),
                                 ":", value_first(own, defaults, "port", NULL, "5432"), NULL);

    if (own)
        PQconninfoFree(own);
    if (defaults)
        PQconninfoFree(defaults);
    return text;
}
