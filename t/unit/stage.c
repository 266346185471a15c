/* A stage for the tests of the pool (stage.h). */
#include "stage.h"
#include "pgp_pq_reset.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <apr_general.h>
#include <apr_strings.h>

/* The borrower whose thread this is. */
static _Thread_local borrower *self;

static void nap_begin(void)
{
    if (!self)
        return;
    atomic_store(&self->overdue, 0);
    atomic_fetch_add(&self->naps, 1);
}

static void nap_end(int woken)
{
    if (self)
        atomic_store(&self->overdue, !woken);
}

/* --- setting ---------------------------------------------------------------- */

static pgp_option_id option_named(const char *name)
{
    int id = 0;

    while (id < PGP_OPTION_COUNT && strcmp(pgp_options[id].name, name))
        id++;
    REQUIRE(id < PGP_OPTION_COUNT, "there is no %s", name);
    return id;
}

static void setting_set(pgp_settings *settings, apr_pool_t *p, const char *setting)
{
    char **argv;
    int argc = 0;
    const char *wrong;

    apr_tokenize_to_argv(setting, &argv, p);
    while (argv[argc])
        argc++;
    wrong = pgp_settings_set(settings, p, option_named(argv[0]), argc - 1,
                             (const char *const *)argv + 1, "test:1");
    REQUIRE(!wrong, "%s: %s", setting, wrong);
}

static pgp_settings *settings_made(apr_pool_t *p, const char *setting, va_list more)
{
    pgp_settings *settings = pgp_settings_defaults(p);

    setting_set(settings, p, "PgPoolConninfo dbname=fake");
    for (; setting; setting = va_arg(more, const char *))
        setting_set(settings, p, setting);
    pgp_pq_reset_compose(settings, p);
    return settings;
}

static void wake(void *baton)
{
    stage_keeper *keeper = baton;

    atomic_store(&keeper->woken, 1);
    pgp_keeper_wake(keeper->keeper);
}

static stage_keeper *keeper_made(fake *world, apr_pool_t *p)
{
    stage_keeper *keeper = apr_pcalloc(p, sizeof(*keeper));

    REQUIRE(pgp_keeper_create(&keeper->keeper, p, &world->env) == APR_SUCCESS, "no keeper");
    return keeper;
}

/* Make the stage's pool from s->settings, and give it to s->keeper. */
static stage *stage_begun(stage *s, const char *name)
{
    pgp_pool_create(&s->pool, s->p, name, s->settings, &s->world->env,
                    (pgp_waker){.wake = wake, .baton = s->keeper});
    if (s->board) {
        const pgp_board_pool pool = {.name = name, .server = s->settings->conninfo};

        pgp_pool_attach_board(s->pool, s->board, pgp_board_place(s->board, &pool));
        pgp_keeper_attach_board(s->keeper->keeper, s->board);
    }
    pgp_keeper_add(s->keeper->keeper, s->pool);
    fake_watch(s->world, s->pool);
    return s;
}

static stage *stage_new(const char *setting, va_list more)
{
    apr_pool_t *p;
    stage *s;

    apr_pool_create(&p, NULL);
    s = apr_pcalloc(p, sizeof(*s));
    s->p = p;
    s->world = fake_make(p);
    s->world->on_sleep = nap_begin;
    s->world->on_wake = nap_end;
    s->keeper = s->first = keeper_made(s->world, p);
    s->settings = settings_made(p, setting, more);
    return s;
}

stage *stage_set(const char *setting, ...)
{
    va_list more;
    stage *s;

    va_start(more, setting);
    s = stage_new(setting, more);
    va_end(more);
    return stage_begun(s, "main");
}

stage *stage_beside(stage *first, const char *setting, ...)
{
    stage *s = apr_pmemdup(first->p, first, sizeof(*first));
    va_list more;

    va_start(more, setting);
    s->settings = settings_made(first->p, setting, more);
    va_end(more);
    return stage_begun(s, "other");
}

#define BOARD_SEATS 4
#define BOARD_POOLS 2

/* Bells are eventfds as in httpd.  No keeper sleeps in poll() here, so each ring wakes all of
 * them. */
typedef struct {
    pgp_bells real;
    stage_keeper *first;
} stage_bells;

static void bells_ring(void *baton, int seat)
{
    stage_bells *bells = baton;
    stage_keeper *keeper;

    bells->real.ring(bells->real.baton, seat);
    for (keeper = bells->first; keeper; keeper = keeper->sibling)
        atomic_store(&keeper->woken, 1);
}

static int bells_fd(void *baton, int seat)
{
    const stage_bells *bells = baton;

    return bells->real.fd(bells->real.baton, seat);
}

static void bells_hang(pgp_board *board, apr_pool_t *p, stage_keeper *first)
{
    stage_bells *bells = apr_palloc(p, sizeof(*bells));
    const pgp_bells hung = {.baton = bells, .ring = bells_ring, .fd = bells_fd};

    bells->first = first;
    REQUIRE(pgp_bells_create(&bells->real, p, BOARD_SEATS) == APR_SUCCESS, "no bells");
    pgp_board_attach_bells(board, &hung);
}

static pgp_board *board_made(apr_pool_t *p)
{
    const pgp_board_pool pools[BOARD_POOLS] = {{.name = "main", .server = "dbname=fake"},
                                               {.name = "other", .server = "dbname=fake"}};
    const pgp_locks locks = fake_locks_of(
        fake_locks_make(p, pgp_board_locks(BOARD_SEATS, BOARD_POOLS)));
    pgp_board *board;

    REQUIRE(pgp_board_create(&board, p, BOARD_SEATS, BOARD_POOLS, &locks) == APR_SUCCESS,
            "no board");
    pgp_board_configure(board, pools, BOARD_POOLS);
    return board;
}

stage *stage_posted(const char *setting, ...)
{
    va_list more;
    stage *s;

    va_start(more, setting);
    s = stage_new(setting, more);
    va_end(more);
    s->board = board_made(s->p);
    bells_hang(s->board, s->p, s->first);
    return stage_begun(s, "main");
}

stage *stage_child(stage *first, const char *setting, ...)
{
    stage *s = apr_pmemdup(first->p, first, sizeof(*first));
    va_list more;

    va_start(more, setting);
    s->settings = settings_made(first->p, setting, more);
    va_end(more);
    s->keeper = keeper_made(s->world, s->p);
    s->keeper->sibling = s->first->sibling;
    s->first->sibling = s->keeper;
    return stage_begun(s, "main");
}

/* --- locks ------------------------------------------------------------------ */

static bool fake_take(void *baton, int byte)
{
    fake_locks *locks = baton;

    REQUIRE(byte >= 0 && byte < locks->bytes, "no such lock: %d", byte);
    if (locks->taken[byte] || locks->shared[byte])
        return false;
    locks->taken[byte] = locks->pid;
    return true;
}

static bool fake_share(void *baton, int byte)
{
    fake_locks *locks = baton;

    REQUIRE(byte >= 0 && byte < locks->bytes, "no such lock: %d", byte);
    if (locks->taken[byte])
        return false;
    locks->shared[byte] = locks->pid;
    return true;
}

static void fake_drop(void *baton, int byte)
{
    fake_locks *locks = baton;

    REQUIRE(locks->taken[byte], "lock %d is not taken", byte);
    locks->taken[byte] = 0;
}

static int fake_holder(void *baton, int byte)
{
    const fake_locks *locks = baton;

    return locks->taken[byte] ? locks->taken[byte] : locks->shared[byte];
}

fake_locks *fake_locks_make(apr_pool_t *p, int bytes)
{
    fake_locks *locks = apr_pcalloc(p, sizeof(*locks));

    locks->pid = getpid();
    locks->taken = apr_pcalloc(p, bytes * sizeof(atomic_int));
    locks->shared = apr_pcalloc(p, bytes * sizeof(atomic_int));
    locks->bytes = bytes;
    return locks;
}

pgp_locks fake_locks_of(fake_locks *locks)
{
    return (pgp_locks){.baton = locks,
                       .take = fake_take,
                       .share = fake_share,
                       .drop = fake_drop,
                       .holder = fake_holder};
}

void fake_locks_die(fake_locks *locks, int pid)
{
    int i;

    for (i = 0; i < locks->bytes; i++) {
        if (locks->taken[i] == pid)
            locks->taken[i] = 0;
        if (locks->shared[i] == pid)
            locks->shared[i] = 0;
    }
}

/* --- the keeper ------------------------------------------------------------- */

static int called(stage *s, stage_keeper *keeper)
{
    const apr_time_t now = s->world->now;

    return atomic_exchange(&keeper->woken, 0) || keeper->next <= now ||
           fake_due(s->world) <= now;
}

static bool make_round(stage *s, stage_keeper *keeper)
{
    if (!called(s, keeper))
        return false;
    keeper->next = pgp_keeper_round(keeper->keeper);
    return true;
}

void work(stage *s)
{
    stage_keeper *keeper;
    bool any;
    int rounds = 0;

    do {
        any = false;
        for (keeper = s->first; keeper; keeper = keeper->sibling)
            any |= make_round(s, keeper);
        REQUIRE(rounds++ < 10000, "the keeper never rests");
    } while (any);
}

static apr_time_t next_round(stage *s)
{
    const apr_time_t due = fake_due(s->world), alarm = fake_alarm(s->world);
    apr_time_t next = due < alarm ? due : alarm;
    stage_keeper *keeper;

    for (keeper = s->first; keeper; keeper = keeper->sibling)
        if (keeper->next < next)
            next = keeper->next;
    return next;
}

static int overdue(const stage *s)
{
    const borrower *b;
    int n = 0;

    for (b = s->first->borrowers; b; b = b->before)
        n += atomic_load(&b->overdue) && !atomic_load(&b->done);
    return n;
}

static void pass(stage *s, apr_interval_time_t time)
{
    fake_pass(s->world, time);
    WAIT_UNTIL(s->world->real_time || fake_alarm(s->world) > s->world->now);
    WAIT_UNTIL(overdue(s) == 0);
}

void keep(stage *s, apr_interval_time_t time)
{
    fake *world = s->world;
    const apr_time_t end = world->now + time;

    for (;;) {
        apr_time_t next;

        work(s);
        next = next_round(s);
        if (next > end)
            break;
        pass(s, next - world->now);
    }
    pass(s, end - world->now);
}

void enter_phase(stage *s, pgp_phase phase)
{
    pgp_keeper_enter_phase(s->keeper->keeper, phase);
    s->keeper->next = 0;
    work(s);
}

void stop(stage *s)
{
    enter_phase(s, PGP_STOPPED);
    REQUIRE(pgp_pool_leave(s->pool), "the keeper cannot leave");
}

/* --- counting --------------------------------------------------------------- */

int slots(stage *s, pgp_state state)
{
    pgp_stats counts;

    pgp_pool_read_stats(s->pool, &counts);
    return counts.state[state];
}

int idle(stage *s)
{
    return slots(s, PGP_IDLE);
}

int lent(stage *s)
{
    return slots(s, PGP_IN_USE);
}

int waiting(stage *s)
{
    pgp_stats counts;

    pgp_pool_read_stats(s->pool, &counts);
    return counts.waiting;
}

/* --- borrowing -------------------------------------------------------------- */

pgp_slot *acquire(stage *s)
{
    return acquire_as(s, NULL, NULL);
}

pgp_slot *acquire_as(stage *s, const char *client, const char *const *what)
{
    pgp_slot *conn = NULL;
    pgp_acquire_info info = {.client = client, .what = what};
    pgp_outcome outcome;

    ck_assert_msg(idle(s) > 0, "none is idle"); /* else this thread would wait for ever */
    outcome = pgp_pool_acquire(s->pool, &conn, &info);
    ck_assert_msg(outcome == PGP_GRANTED, "refused (%d): %s", outcome, info.error.message);
    ck_assert_str_eq(info.error.message, "");
    ck_assert_str_eq(info.error.sqlstate, "");
    return conn;
}

pgp_outcome refused(stage *s, pgp_acquire_info *info)
{
    pgp_slot *conn = NULL;
    pgp_outcome outcome;

    *info = (pgp_acquire_info){.until = 0};
    outcome = pgp_pool_acquire(s->pool, &conn, info);
    ck_assert_msg(outcome != PGP_GRANTED, "granted");
    ck_assert_msg(!conn, "refused, but with a connection");
    ck_assert_str_ne(info->error.message, "");
    return outcome;
}

void release(pgp_slot *conn)
{
    pgp_pool_release(&conn);
    ck_assert_msg(!conn, "the borrower still has it");
}

int number(const pgp_slot *conn)
{
    return fake_link_of(conn)->number;
}

/* The wall clock may be set at any time, so the core must not read it. */
apr_time_t apr_time_now(void)
{
    ck_abort_msg("somebody looks at the wall clock");
    return 0;
}

static void *borrow(void *data)
{
    borrower *b = data;

    self = b;
    fake_hasten(b->early);
    b->outcome = pgp_pool_acquire(b->on->pool, &b->conn, &b->info);
    atomic_store(&b->done, 1);
    return NULL;
}

static borrower *ask_early(stage *s, apr_interval_time_t early)
{
    borrower *b = apr_pcalloc(s->p, sizeof(*b));

    b->on = s;
    b->early = early;
    b->before = s->first->borrowers;
    s->first->borrowers = b;
    pthread_create(&b->thread, NULL, borrow, b);
    return b;
}

borrower *ask(stage *s)
{
    return ask_early(s, 0);
}

void asleep_after(borrower *b, int naps)
{
    WAIT_UNTIL(atomic_load(&b->naps) > naps || atomic_load(&b->done));
    ck_assert_msg(!atomic_load(&b->done), "did not have to wait: outcome %d", b->outcome);
}

borrower *queue_up_early(stage *s, apr_interval_time_t early)
{
    borrower *b = ask_early(s, early);

    asleep_after(b, 0);
    return b;
}

borrower *queue_up(stage *s)
{
    return queue_up_early(s, 0);
}

void answered(borrower *b, pgp_outcome outcome)
{
    WAIT_UNTIL(atomic_load(&b->done));
    pthread_join(b->thread, NULL);
    ck_assert_msg(b->outcome == outcome, "outcome %d, not %d: %s", b->outcome, outcome,
                  b->info.error.message);
}

pgp_slot *granted(borrower *b)
{
    answered(b, PGP_GRANTED);
    ck_assert_str_eq(b->info.error.message, "");
    return b->conn;
}

void warm(stage *s, int n)
{
    borrower **b = apr_palloc(s->p, n * sizeof(*b));
    int i;

    for (i = 0; i < n; i++)
        b[i] = queue_up(s);
    work(s);
    for (i = 0; i < n; i++)
        release(granted(b[i]));
    ck_assert_int_eq(idle(s), n);
}

/* --- suites ----------------------------------------------------------------- */

/* Each test is a process of its own, so no test cleans up. */
static void apr_begin(void)
{
    apr_initialize();
}

TCase *tcase(Suite *suite, const char *name)
{
    TCase *made = tcase_create(name);

    tcase_add_checked_fixture(made, apr_begin, NULL);
    tcase_set_timeout(made, 60);
    suite_add_tcase(suite, made);
    return made;
}

int suite_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
