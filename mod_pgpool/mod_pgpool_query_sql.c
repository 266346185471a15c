/*
 * Scans the SQL of a PgPoolQuery (mod_pgpool_query_sql.h).
 */
#include "mod_pgpool_query_sql.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool starts_identifier(char c)
{
    return isalpha((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

static bool continues_identifier(char c)
{
    return starts_identifier(c) || isdigit((unsigned char)c) || c == '$';
}

/* Each *_end() takes the begin of a token and returns its end; NULL: it is not closed. */

/* A doubled quote does not end the text; nor does a quote behind a backslash in E''. */
static const char *quoted_end(const char *at, bool backslashes)
{
    const char quote = *at++;

    for (; *at; at++) {
        if (backslashes && *at == '\\' && at[1])
            at++;
        else if (*at == quote && at[1] == quote)
            at++;
        else if (*at == quote)
            return at + 1;
    }
    return NULL;
}

static const char *block_comment_end(const char *at)
{
    int depth = 0;

    while (*at) {
        const bool opens = at[0] == '/' && at[1] == '*', closes = at[0] == '*' && at[1] == '/';

        depth += opens - closes;
        at += opens || closes ? 2 : 1;
        if (!depth)
            return at;
    }
    return NULL;
}

/* $tag$ ... $tag$; a dollar sign that begins no tag is a token of its own. */
static const char *dollar_quoted_end(const char *at)
{
    const char *tag = at++, *close;
    size_t length;

    if (starts_identifier(*at))
        while (*at != '$' && continues_identifier(*at))
            at++;
    if (*at != '$')
        return tag + 1;
    length = at + 1 - tag;
    for (close = strchr(at + 1, '$'); close; close = strchr(close + 1, '$'))
        if (!strncmp(close, tag, length))
            return close + length;
    return NULL;
}

static const char *identifier_end(const char *at)
{
    const char *from = at;

    while (continues_identifier(*at))
        at++;
    if (*at == '\'' && at == from + 1 && (*from == 'e' || *from == 'E'))
        return quoted_end(at, true);
    return at;
}

static bool is_comment(const char *at)
{
    return !strncmp(at, "--", 2) || !strncmp(at, "/*", 2);
}

static const char *token_end(const char *at)
{
    if (!strncmp(at, "--", 2))
        return at + strcspn(at, "\r\n");
    if (!strncmp(at, "/*", 2))
        return block_comment_end(at);
    if (*at == '\'' || *at == '"')
        return quoted_end(at, false);
    if (*at == '$' && isdigit((unsigned char)at[1]))
        return at + 1 + strspn(at + 1, "0123456789");
    if (*at == '$')
        return dollar_quoted_end(at);
    if (starts_identifier(*at))
        return identifier_end(at);
    return at + 1;
}

static int param_of(const char *token)
{
    const long n = *token == '$' ? strtol(token + 1, NULL, 10) : 0;

    return n < PGPOOL_SQL_PARAMS_MOST ? (int)n : PGPOOL_SQL_PARAMS_MOST;
}

pgpool_sql pgpool_sql_scan(const char *text)
{
    pgpool_sql found = {.wrong = NULL};
    const char *at, *end, *open = NULL;
    bool ended = false;
    int depth = 0;

    for (at = text; *at; at = end) {
        end = token_end(at);
        if (!end)
            return (pgpool_sql){.wrong = "a quote or comment is not closed", .at = at};
        if (isspace((unsigned char)*at) || is_comment(at))
            continue;
        if (*at == ';') {
            ended = true;
            continue;
        }
        if (ended)
            return (pgpool_sql){.wrong = "there is something behind its semicolon", .at = at};
        if ((*at == '(' || *at == '[') && depth++ == 0)
            open = at;
        if ((*at == ')' || *at == ']') && depth-- == 0)
            return (pgpool_sql){.wrong = "a parenthesis is closed but not opened", .at = at};
        if (param_of(at) > found.params)
            found.params = param_of(at);
        found.length = end - text;
    }
    if (depth)
        return (pgpool_sql){.wrong = "a parenthesis is not closed", .at = open};
    return found;
}
