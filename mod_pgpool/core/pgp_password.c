/* Reads a password from a file or from the output of a command (pgp_password.h). */

#include "pgp_password.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <apr_strings.h>

#include "pgp_alloc.h"

extern char **environ;

#define FILE_PREFIX "file:"
#define EXEC_PREFIX "exec:"
#define PREFIX_LENGTH 5

/* A cloud's token may have a few kilobytes. */
#define LONGEST_PASSWORD 8191

/* How often to look whether a command has ended, in milliseconds. */
#define END_STEP 2

struct pgp_password {
    const apr_array_header_t *source;
    apr_interval_time_t patience;
    char error[200];
    size_t length;
    char text[LONGEST_PASSWORD + 3]; /* with the end of its line, and a null */
};

/* --- the source -------------------------------------------------------------- */

static bool is_file(const char *first)
{
    return !strncmp(first, FILE_PREFIX, PREFIX_LENGTH);
}

const char *pgp_password_check(int n, const char *const *source)
{
    const char *first = n > 0 ? source[0] : "";

    if (!is_file(first) && strncmp(first, EXEC_PREFIX, PREFIX_LENGTH) != 0)
        return "takes file:/path, or exec:/path and arguments; never the password itself";
    if (first[PREFIX_LENGTH] != '/')
        return "takes an absolute path after \"file:\" or \"exec:\"";
    return is_file(first) && n > 1 ? "takes one path after \"file:\"" : NULL;
}

pgp_password *pgp_password_make(const apr_array_header_t *source, apr_interval_time_t patience)
{
    pgp_password *password = pgp_alloc(sizeof(*password));

    password->source = source;
    password->patience = patience;
    return password;
}

void pgp_password_free(pgp_password *password)
{
    explicit_bzero(password, sizeof(*password));
    free(password);
}

const char *pgp_password_error(const pgp_password *password)
{
    return *password->error ? password->error : NULL;
}

const char *pgp_password_text(const pgp_password *password)
{
    return password->text;
}

static const char *path_of(const pgp_password *password)
{
    return APR_ARRAY_IDX(password->source, 0, const char *) + PREFIX_LENGTH;
}

static void password_fail(pgp_password *password, const char *why)
{
    apr_snprintf(password->error, sizeof password->error, "PgPoolPassword: %.120s: %s",
                 path_of(password), why);
}

static void password_fail_system(pgp_password *password, int error)
{
    char words[64];

    password_fail(password, apr_strerror(error, words, sizeof words));
}

/* --- reading ----------------------------------------------------------------- */

/* Read the next piece.  Returns the result of read(): 0 at the end, or if there is no room. */
static ssize_t piece_read(pgp_password *password, int fd)
{
    const size_t room = sizeof password->text - 1 - password->length;
    ssize_t got;

    do
        got = read(fd, password->text + password->length, room);
    while (got < 0 && errno == EINTR);
    if (got > 0)
        password->length += got;
    return got;
}

/* Cut the end of the line off, and check the rest. */
static void line_take(pgp_password *password)
{
    char *text = password->text;

    if (password->length && text[password->length - 1] == '\n')
        password->length--;
    if (password->length && text[password->length - 1] == '\r')
        password->length--;
    text[password->length] = '\0';
    if (!password->length)
        password_fail(password, "is empty");
    else if (password->length > LONGEST_PASSWORD)
        password_fail(password, "is too long for a password");
    else if (strlen(text) != password->length || strchr(text, '\n'))
        password_fail(password, "has more than the one line of a password");
}

/* Read a regular file.  O_NONBLOCK: open() must not await the other end of a pipe. */
static void file_read(pgp_password *password)
{
    const int fd = open(path_of(password), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat is;
    ssize_t got = 1;

    if (fd < 0) {
        password_fail_system(password, errno);
        return;
    }
    if (fstat(fd, &is) != 0 || !S_ISREG(is.st_mode))
        password_fail(password, "is no regular file");
    else {
        while (got > 0)
            got = piece_read(password, fd);
        if (got < 0)
            password_fail_system(password, errno);
        else
            line_take(password);
    }
    close(fd);
}

/* --- running a command ------------------------------------------------------- */

/* Start the command in a process group of its own: without input, its output into the pipe, its
 * complaints into httpd's error log.  Returns 0 or the system's error. */
static int command_start(const pgp_password *password, int output, pid_t *pid)
{
    const apr_array_header_t *source = password->source;
    char **argv = pgp_alloc((source->nelts + 1) * sizeof(*argv));
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int i, error;

    for (i = 0; i < source->nelts; i++)
        argv[i] = APR_ARRAY_IDX(source, i, char *);
    argv[0] += PREFIX_LENGTH;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
    error = posix_spawn(pid, argv[0], &files, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    free(argv);
    return error;
}

static apr_int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * APR_INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Read until the end of the output.  false: it has not come in time. */
static bool output_read(pgp_password *password, int fd, apr_int64_t until)
{
    apr_int64_t left;

    while ((left = until - now_ms()) > 0) {
        struct pollfd await = {.fd = fd, .events = POLLIN};

        if (poll(&await, 1, left < 60000 ? (int)left : 60000) > 0 &&
            piece_read(password, fd) <= 0)
            return true;
    }
    return false;
}

/* false: the command has not ended in time. */
static bool command_wait(pid_t pid, apr_int64_t until)
{
    siginfo_t ended = {.si_pid = 0};

    while (waitid(P_PID, pid, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && !ended.si_pid &&
           now_ms() < until)
        poll(NULL, 0, END_STEP);
    return ended.si_pid != 0;
}

/* Returns whether the command has succeeded. */
static bool command_reap(pid_t pid)
{
    int status = -1;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0;
}

/* Take the command's output.  If the command is late, kill its process group, with all that it
 * has started.  The group keeps its number until the command is reaped, so kill it first. */
static void output_take(pgp_password *password, int fd, pid_t pid)
{
    const apr_int64_t until = now_ms() + password->patience / 1000;
    const bool is_in_time = output_read(password, fd, until) && command_wait(pid, until);
    bool has_succeeded;

    if (!is_in_time)
        kill(-pid, SIGKILL);
    has_succeeded = command_reap(pid);
    if (!is_in_time)
        password_fail(password, "gave no password within PgPoolConnectTimeout, and was killed");
    else if (has_succeeded)
        line_take(password);
    else
        password_fail(password, "the command has failed; what it said is in this log");
}

static void command_read(pgp_password *password)
{
    int ends[2], error;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0) {
        password_fail_system(password, errno);
        return;
    }
    error = command_start(password, ends[1], &pid);
    close(ends[1]);
    if (error)
        password_fail_system(password, error);
    else
        output_take(password, ends[0], pid);
    close(ends[0]);
}

void pgp_password_read(pgp_password *password)
{
    password->length = 0;
    if (is_file(APR_ARRAY_IDX(password->source, 0, const char *)))
        file_read(password);
    else
        command_read(password);
}
