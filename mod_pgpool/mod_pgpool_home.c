/*
 * Sets HOME in a child.  libpq looks there for certificates, the password file and the service
 * file.
 *
 * A child inherits httpd's environment.  If root has started httpd, HOME is root's directory,
 * which the children's user cannot read: libpq then goes on without TLS under sslmode=prefer,
 * and fails under sslmode=require.  So a child gets the home directory of the user that it runs
 * as.  A user who starts httpd without privileges has chosen HOME; it stays if the child can
 * enter it.
 */
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include <mpm_common.h>
#include <unixd.h>

#include "mod_pgpool_register.h"

/* A child runs this before it changes its user, and before it has a second thread. */
static int home_choose(apr_pool_t *pchild, server_rec *s)
{
    const bool is_root = geteuid() == 0;
    const uid_t uid = is_root ? ap_unixd_config.user_id : geteuid();
    const char *home = getenv("HOME");
    const struct passwd *user;

    if (!home || (!is_root && access(home, X_OK) == 0))
        return OK; /* without HOME libpq looks up the user's directory itself */
    user = getpwuid(uid);
    if (user && *user->pw_dir)
        setenv("HOME", user->pw_dir, 1);
    else
        unsetenv("HOME");
    return OK;
}

void pgpool_home_register(void)
{
    ap_hook_drop_privileges(home_choose, NULL, NULL, APR_HOOK_REALLY_FIRST);
}
