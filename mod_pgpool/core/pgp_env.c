#include "pgp_env.h"

#include <stdarg.h>
#include <stdio.h>
#include <apr_strings.h>

#define LINE_MAX_LENGTH 1024

void pgp_log(const pgp_env *env, pgp_log_level level, pgp_message id, const char *pool,
             int backend, const char *format, ...)
{
    char line[LINE_MAX_LENGTH];
    int length;
    va_list args;

    if (!env->log_wanted(env->baton, level))
        return;
    if (backend)
        length = apr_snprintf(line, sizeof line, "PGP%d: pool %s, backend %d: ", id, pool,
                              backend);
    else
        length = apr_snprintf(line, sizeof line, "PGP%d: pool %s: ", id, pool);
    va_start(args, format);
    apr_vsnprintf(line + length, sizeof line - length, format, args);
    va_end(args);
    env->log_write(env->baton, level, line);
}
