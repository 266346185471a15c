/* The driver on libpq, against a listener of the test's instead of PostgreSQL. */
#include "stage.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <apr_strings.h>

#include "pgp_pq_driver.h"

static const pgp_driver *const driver = &pgp_pq_driver;

/* A server that accepts a connection and says nothing, and the driver's connection to it. */
typedef struct {
    char directory[32], path[64], conninfo[64];
    pgp_settings settings;
    pgp_context context;
    int listener, server;
    pgp_connection *connection;
} peer;

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    apr_cpystrn(address.sun_path, path, sizeof address.sun_path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    return fd;
}

static void peer_connect(peer *p)
{
    struct pollfd await;
    pgp_error error = {.sqlstate = ""};
    apr_pool_t *memory;

    apr_pool_create(&memory, NULL);
    *p = (peer){.directory = "/tmp/pgpool-XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(p->directory));
    apr_snprintf(p->path, sizeof p->path, "%s/.s.PGSQL.5432", p->directory);
    apr_snprintf(p->conninfo, sizeof p->conninfo, "host=%s port=5432 user=nobody",
                 p->directory);
    p->settings.conninfo = p->conninfo;
    p->context = (pgp_context){
        .env = &fake_make(memory)->env, .pool = "main", .settings = &p->settings};
    p->listener = listen_at(p->path);
    p->connection = driver->connect(&p->context, 0, 0, NULL, &error);
    ck_assert_msg(p->connection, "%s", error.message);
    ck_assert_int_eq(driver->step(p->connection, &await, &error), PGP_STEP_AGAIN);
    p->server = accept(p->listener, NULL, NULL);
    ck_assert_int_ge(p->server, 0);
}

static void peer_remove(peer *p)
{
    close(p->server);
    close(p->listener);
    unlink(p->path);
    rmdir(p->directory);
}

static int unread(const struct pollfd *await)
{
    int bytes = 0;

    ck_assert_int_eq(ioctl(await->fd, FIONREAD, &bytes), 0);
    return bytes;
}

/* A server that streams without end must not keep the keeper from other connections. */
START_TEST(closing_drops_a_bounded_amount_at_each_step)
{
    static const char chunk[4096];
    struct pollfd await = {.fd = -1};
    int size = 1 << 20;
    pgp_error error;
    peer p;

    peer_connect(&p);
    driver->close(p.connection);
    setsockopt(p.server, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    while (send(p.server, chunk, sizeof chunk, MSG_DONTWAIT) > 0)
        ;
    ck_assert_int_eq(driver->step(p.connection, &await, &error), PGP_STEP_AGAIN);
    ck_assert_int_gt(unread(&await), 0);
    close(p.server);
    WAIT_UNTIL(driver->step(p.connection, &await, &error) == PGP_STEP_DONE);
    driver->destroy(p.connection);
    peer_remove(&p);
}
END_TEST

START_TEST(closed_connection_waits_for_its_server)
{
    struct pollfd await = {.fd = -1};
    pgp_error error;
    peer p;

    peer_connect(&p);
    driver->close(p.connection);
    ck_assert_int_eq(driver->step(p.connection, &await, &error), PGP_STEP_AGAIN);
    close(p.server);
    WAIT_UNTIL(driver->step(p.connection, &await, &error) == PGP_STEP_DONE);
    driver->destroy(p.connection);
    peer_remove(&p);
}
END_TEST

/* destroy() closes the socket: the server reads the start-up packet, and then the end. */
START_TEST(destroy_closes_the_socket)
{
    char dropped[64];
    peer p;
    ssize_t got;

    peer_connect(&p);
    driver->destroy(p.connection);
    do
        got = recv(p.server, dropped, sizeof dropped, 0); /* the start-up packet */
    while (got > 0);
    ck_assert_int_eq(got, 0);
    peer_remove(&p);
}
END_TEST

/* --- misuse ------------------------------------------------------------------ */

static void close_twice(peer *p)
{
    driver->close(p->connection);
    driver->close(p->connection);
}

static void use_before_it_is_ready(peer *p)
{
    pgp_error error;

    driver->prepare(p->connection, true, 0, &error);
}

static void end_a_lease_before_one(peer *p)
{
    driver->finish_lease(p->connection);
}

static void clean_up_before_a_lease(peer *p)
{
    driver->cleanup(p->connection);
}

static void take_the_handle_of_a_closed_one(peer *p)
{
    driver->close(p->connection);
    driver->handle(p->connection);
}

static void (*const misuses[])(peer *p) = {
    close_twice,
    use_before_it_is_ready,
    end_a_lease_before_one,
    clean_up_before_a_lease,
    take_the_handle_of_a_closed_one,
};

/* The driver asserts the order of calls: otherwise a child might lend a session in a wrong
 * state. */
START_TEST(call_in_the_wrong_phase_aborts)
{
    peer p;

    peer_connect(&p);
    peer_remove(&p);
    misuses[_i](&p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pq");
    TCase *t = tcase(suite, "closing");

    tcase_add_test(t, closing_drops_a_bounded_amount_at_each_step);
    tcase_add_test(t, closed_connection_waits_for_its_server);
    tcase_add_test(t, destroy_closes_the_socket);
    t = tcase(suite, "misuse");
    tcase_add_loop_test_raise_signal(t, call_in_the_wrong_phase_aborts, SIGABRT, 0,
                                     LENGTH(misuses));
    return suite_run(suite);
}
