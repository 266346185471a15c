/* The hosts of a connection string, and tasks: calls in a thread of their own, which their
 * caller may leave. */
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>

#include "stage.h"

#include "pgp_pq_hosts.h"
#include "pgp_task.h"

/* --- hosts ------------------------------------------------------------------ */

static const struct {
    const char *conninfo;
    unsigned first;
    const char *host, *addr, *port; /* host NULL: none is named */
} lists[] = {
    {"dbname=a", 0, NULL, NULL, NULL},
    {"no connection string", 0, NULL, NULL, NULL},
    {"host=192.0.2.1", 0, "192.0.2.1", "", NULL},
    {"host=192.0.2.1 port=5433", 0, "192.0.2.1", "", "5433"},
    {"hostaddr=192.0.2.1", 0, "", "192.0.2.1", NULL},
    {"host=db hostaddr=192.0.2.1", 0, "db", "192.0.2.1", NULL},
    {"host=/run/pg", 0, "/run/pg", "", NULL},
    {"host=/run/a,/run/b", 0, "/run/a,/run/b", ",", NULL},
    {"host=/run/a,/run/b", 1, "/run/b,/run/a", ",", NULL},
    {"host=/run/a,/run/b", 2, "/run/a,/run/b", ",", NULL},
    {"host=/run/a,/run/b", 4000000001u, "/run/b,/run/a", ",", NULL},
    {"host=/a,/b,/c port=1,2,3", 1, "/b,/c,/a", ",,", "2,3,1"},
    {"host=/a,/b port=7", 1, "/b,/a", ",", "7,7"},
    {"host=/a,/b port=,7", 1, "/b,/a", ",", "7,"},
    {"postgresql://192.0.2.1:1,[2001:db8::1]:2/app", 1, "2001:db8::1,192.0.2.1", ",", "2,1"},
};

START_TEST(hosts_in_their_order)
{
    const char *params[3] = {NULL, NULL, NULL};
    pgp_pq_hosts *hosts = pgp_pq_hosts_read(lists[_i].conninfo);

    ck_assert(!pgp_pq_hosts_has_names(hosts));
    ck_assert_int_eq(pgp_pq_hosts_params(hosts, lists[_i].first, params),
                     lists[_i].host != NULL);
    ck_assert_pstr_eq(params[0], lists[_i].host);
    ck_assert_pstr_eq(params[1], lists[_i].addr);
    ck_assert_pstr_eq(params[2], lists[_i].port);
    pgp_pq_hosts_free(hosts);
}
END_TEST

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* The core's look-ups come here.  There is one name, "db", with two addresses. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    lookup *real;
    int failed;

    if (strcmp(name, "db"))
        return EAI_NONAME;
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    failed = real("192.0.2.7", service, hints, found);
    return failed ? failed : real("2001:db8::7", service, hints, &(*found)->ai_next);
}

START_TEST(name_is_looked_up)
{
    const char *params[3] = {NULL, NULL, NULL};
    pgp_pq_hosts *hosts = pgp_pq_hosts_read("host=/run/a,db port=1,2");

    ck_assert(pgp_pq_hosts_has_names(hosts));
    pgp_pq_hosts_resolve(hosts);
    ck_assert(!pgp_pq_hosts_has_names(hosts));
    ck_assert_ptr_null(pgp_pq_hosts_error(hosts));
    ck_assert_int_eq(pgp_pq_hosts_params(hosts, 0, params), 1);
    ck_assert_str_eq(params[0], "/run/a,db,db");
    ck_assert_str_eq(params[1], ",192.0.2.7,2001:db8::7");
    ck_assert_str_eq(params[2], "1,2,2");
    pgp_pq_hosts_free(hosts);
}
END_TEST

START_TEST(unknown_name)
{
    pgp_pq_hosts *hosts = pgp_pq_hosts_read("host=nowhere.invalid");

    pgp_pq_hosts_resolve(hosts);
    ck_assert_ptr_nonnull(pgp_pq_hosts_error(hosts));
    ck_assert_ptr_nonnull(strstr(pgp_pq_hosts_error(hosts), "\"nowhere.invalid\""));
    pgp_pq_hosts_free(hosts);
}
END_TEST

/* The hosts with an address remain. */
START_TEST(unknown_name_among_others)
{
    const char *params[3] = {NULL, NULL, NULL};
    pgp_pq_hosts *hosts = pgp_pq_hosts_read("host=nowhere.invalid,/run/b port=1,2");

    pgp_pq_hosts_resolve(hosts);
    ck_assert_ptr_null(pgp_pq_hosts_error(hosts));
    ck_assert_int_eq(pgp_pq_hosts_params(hosts, 0, params), 1);
    ck_assert_str_eq(params[0], "/run/b");
    ck_assert_str_eq(params[2], "2");
    pgp_pq_hosts_free(hosts);
}
END_TEST

/* --- tasks ------------------------------------------------------------------ */

static atomic_int may_end, disposed;

static void run(void *data)
{
    while (!atomic_load(&may_end))
        apr_sleep(1000);
    *(int *)data = 42;
}

static void dispose(void *data)
{
    atomic_fetch_add(&disposed, 1);
}

static int readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

START_TEST(task_tells_that_it_is_done)
{
    int data = 0;
    pgp_task *task = pgp_task_start(run, dispose, &data);

    ck_assert_ptr_nonnull(task);
    ck_assert(!pgp_task_is_done(task));
    ck_assert(!readable(pgp_task_fd(task)));
    atomic_store(&may_end, 1);
    WAIT_UNTIL(pgp_task_is_done(task));
    ck_assert_int_eq(data, 42);
    WAIT_UNTIL(readable(pgp_task_fd(task)));
    ck_assert_int_eq(atomic_load(&disposed), 0); /* the test has not left it yet */
    pgp_task_leave(&task);
    ck_assert_ptr_null(task);
    WAIT_UNTIL(atomic_load(&disposed));
    ck_assert_int_eq(atomic_load(&disposed), 1);
}
END_TEST

START_TEST(abandoned_task_disposes_of_its_data)
{
    static int data;
    pgp_task *task = pgp_task_start(run, dispose, &data);

    pgp_task_leave(&task);
    ck_assert_ptr_null(task);
    ck_assert_int_eq(atomic_load(&disposed), 0); /* it still runs */
    atomic_store(&may_end, 1);
    WAIT_UNTIL(atomic_load(&disposed));
    ck_assert_int_eq(atomic_load(&disposed), 1);
}
END_TEST

START_TEST(task_may_be_left_at_any_moment)
{
    static int data[200];
    int i;

    atomic_store(&may_end, 1);
    for (i = 0; i < LENGTH(data); i++) {
        pgp_task *task = pgp_task_start(run, dispose, &data[i]);

        ck_assert_ptr_nonnull(task);
        if (i % 3 == 0)
            WAIT_UNTIL(pgp_task_is_done(task));
        else if (i % 3 == 1)
            apr_sleep(i);
        pgp_task_leave(&task);
    }
    WAIT_UNTIL(atomic_load(&disposed) == LENGTH(data));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hosts");
    TCase *t = tcase(suite, "hosts");

    tcase_add_loop_test(t, hosts_in_their_order, 0, LENGTH(lists));
    tcase_add_test(t, name_is_looked_up);
    tcase_add_test(t, unknown_name);
    tcase_add_test(t, unknown_name_among_others);
    t = tcase(suite, "tasks");
    tcase_add_test(t, task_tells_that_it_is_done);
    tcase_add_test(t, abandoned_task_disposes_of_its_data);
    tcase_add_test(t, task_may_be_left_at_any_moment);
    return suite_run(suite);
}
