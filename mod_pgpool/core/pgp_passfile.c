/* Explains why the password file did not help (pgp_passfile.h). */

#include "pgp_passfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <apr_strings.h>

#include "pgp_conninfo.h"

static void file_explain(const char *path, char *words, apr_size_t size)
{
    struct stat file;
    int length;

    if (stat(path, &file) != 0) {
        apr_snprintf(words, size, "passfile \"%s\": %s, for uid %d", path, strerror(errno),
                     (int)geteuid());
        return;
    }
    length = apr_snprintf(words, size, "passfile \"%s\" (owner uid %d, mode %04o) ", path,
                          (int)file.st_uid, (unsigned)file.st_mode & 07777);
    words += length;
    size -= length;
    if (!S_ISREG(file.st_mode))
        apr_cpystrn(words, "is not a plain file", size);
    else if (file.st_mode & (S_IRWXG | S_IRWXO))
        apr_snprintf(words, size, "is not used: it needs mode 0600 or less, and owner uid %d",
                     (int)geteuid());
    else if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0)
        apr_snprintf(words, size, "cannot be read by uid %d", (int)geteuid());
    else
        apr_cpystrn(words, "has no password for this host, port, database and user", size);
}

void pgp_passfile_explain(PGconn *conn, char *words, apr_size_t size)
{
    PQconninfoOption *options = PQconninfo(conn);
    const char *path = pgp_conninfo_value(options, "passfile");

    if (path)
        file_explain(path, words, size);
    else
        apr_cpystrn(words, "there is no passfile, and no home directory to have one", size);
    PQconninfoFree(options);
}
