/* The board: places, seats and their ended children, figures, hostile memory. */
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "stage.h"

#include "pgp_board_private.h"
#include "pgp_permits.h"

#define SEATS 4
#define PLACES 2
#define NOW PGP_SEC(100)
#define STEP PGP_BOARD_REAP_STEP

static apr_pool_t *memory;
static fake_locks *locks;
static pgp_board *board;

static const pgp_board_pool a = {.name = "main", .server = "dbname=a"},
                            b = {.name = "main", .server = "dbname=b"},
                            c = {.name = "main", .server = "dbname=c"},
                            d = {.name = "main", .server = "dbname=d"};

static void board_make(const pgp_locks *with)
{
    const apr_status_t rv = pgp_board_create(&board, memory, SEATS, PLACES, with);

    REQUIRE(rv == APR_SUCCESS, "no board");
    pgp_board_configure(board, &a, 1);
}

static void board_begin(void)
{
    pgp_locks fake;

    apr_pool_create(&memory, NULL);
    locks = fake_locks_make(memory, pgp_board_locks(SEATS, PLACES));
    fake = fake_locks_of(locks);
    board_make(&fake);
}

static int used(apr_time_t now)
{
    const pgp_quota quota = {.board = board, .row = 0, .cap = 10};
    pgp_outlook look;

    pgp_permits_look(&quota, now, PGP_SEC(3), &look);
    return look.used;
}

static pgp_quota quota_of(int seat)
{
    return (pgp_quota){.board = board, .seat = seat, .row = 0, .cap = 10};
}

static pgp_stats totals_of(int place)
{
    pgp_stats stats;

    pgp_board_read(board, -1, place, NOW, &stats);
    return stats;
}

/* --- places ----------------------------------------------------------------- */

static int configure(const pgp_board_pool *first, const pgp_board_pool *second)
{
    pgp_board_pool pools[2];

    pools[0] = *first;
    if (second)
        pools[1] = *second;
    return pgp_board_configure(board, pools, second ? 2 : 1);
}

START_TEST(pools_are_told_apart)
{
    const pgp_board_pool named = {.name = "more", .server = "dbname=a"};
    const pgp_board_pool second = {.name = "main", .server = "dbname=a", .nth = 1};

    ck_assert_int_eq(configure(&a, &b), 0);
    ck_assert_int_eq(pgp_board_place(board, &a), 0);
    ck_assert_int_eq(pgp_board_place(board, &b), 1);
    ck_assert_int_eq(pgp_board_place(board, &named), -1);
    ck_assert_int_eq(pgp_board_place(board, &second), -1);
}
END_TEST

START_TEST(place_is_given_to_another_pool)
{
    configure(&a, &b);
    ck_assert_int_eq(configure(&a, &c), 1); /* a child that has b may still start */
    ck_assert_int_eq(pgp_board_place(board, &c), -1);
    ck_assert_int_eq(pgp_board_place(board, &b), -1);
    ck_assert_int_eq(configure(&a, &c), 0);
    ck_assert_int_eq(pgp_board_place(board, &c), 1);
    ck_assert_int_eq(pgp_board_place(board, &a), 0);
}
END_TEST

START_TEST(place_that_a_child_uses_is_kept)
{
    int seat;

    configure(&a, &b);
    seat = pgp_board_claim(board, NOW);
    configure(&a, NULL);
    ck_assert_int_eq(configure(&a, &c), 1);
    pgp_board_leave(board, seat, NOW); /* it has no connection now, but may have again */
    ck_assert_int_eq(configure(&a, &c), 1);
    fake_locks_die(locks, locks->pid);
    ck_assert_int_eq(configure(&a, &c), 0);
}
END_TEST

START_TEST(returning_pool_has_its_place)
{
    configure(&a, &b);
    configure(&a, NULL);
    configure(&a, NULL);
    ck_assert_int_eq(configure(&b, &a), 0);
    ck_assert_int_eq(pgp_board_place(board, &a), 0);
    ck_assert_int_eq(pgp_board_place(board, &b), 1);
}
END_TEST

/* The row of its server may belong to another server by then. */
START_TEST(returning_pool_has_its_own_server)
{
    const pgp_board_pool all[] = {a, b, c};
    const pgp_locks fake = fake_locks_of(fake_locks_make(memory, pgp_board_locks(SEATS, 4)));

    REQUIRE(pgp_board_create(&board, memory, SEATS, 4, &fake) == APR_SUCCESS, "no board");
    configure(&a, &b);
    configure(&a, NULL);
    configure(&a, NULL);
    configure(&a, &c);
    ck_assert_int_eq(pgp_board_configure(board, all, 3), 0);
    ck_assert_int_ne(pgp_board_server_row(board, pgp_board_place(board, &b)),
                     pgp_board_server_row(board, pgp_board_place(board, &c)));
}
END_TEST

/* Each of 20 configurations has another pool. */
START_TEST(places_do_not_run_out)
{
    char server[32];
    const pgp_board_pool pool = {.name = "main", .server = server};
    int i;

    for (i = 0; i < 20; i++) {
        snprintf(server, sizeof server, "user=u%d", i);
        ck_assert_int_eq(pgp_board_configure(board, &pool, 1), 0);
        ck_assert_int_ge(pgp_board_place(board, &pool), 0);
    }
}
END_TEST

/* A hostile process may take a place's lock at any moment.  At the first call it has not. */
static int holder_that_comes_back(void *baton, int byte)
{
    static int asked;

    return asked++ ? 100 : 0;
}

START_TEST(lock_that_is_taken_meanwhile_does_no_harm)
{
    pgp_locks hostile;

    board_begin();
    hostile = fake_locks_of(locks);
    hostile.holder = holder_that_comes_back;
    board_make(&hostile);
    configure(&a, &b);
    configure(&c, NULL);
    ck_assert_int_eq(configure(&c, NULL), 0);
    ck_assert_int_eq(pgp_board_place(board, &c), 0);
    ck_assert_int_lt(pgp_board_server_row(board, 0), 2 * PLACES);
}
END_TEST

/* Another pool gets the place.  It inherits no figures, neither in a seat nor in the totals,
 * and no orders. */
START_TEST(new_pool_counts_from_zero)
{
    pgp_stats stats = {.n[PGP_N_ACQUIRES] = 7}, more = {.n[PGP_N_ACQUIRES] = 1};
    pgp_gate_count count;
    int seat = pgp_board_claim(board, NOW);

    pgp_board_publish(board, seat, 0, &stats);
    pgp_board_leave(board, seat, NOW);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    ck_assert(
        pgp_gate_pass(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW, PGP_NEVER, &count));
    pgp_board_suspend(board, 0, NOW + PGP_SEC(60));
    fake_locks_die(locks, locks->pid);
    configure(&b, NULL);
    configure(&b, &c);
    ck_assert_int_eq(configure(&b, &d), 1);
    ck_assert_int_eq(configure(&b, &d), 0);
    ck_assert_int_eq(pgp_board_place(board, &d), 0);
    ck_assert_int_eq(pgp_board_orders(board, 0, NOW).suspended_until, 0);
    pgp_board_reconnect(board, 0, NOW);
    ck_assert_int_eq(pgp_board_orders(board, 0, NOW).suspended_until, 0);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 0);
    ck_assert(
        pgp_gate_pass(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW, PGP_NEVER, &count));

    seat = pgp_board_claim(board, NOW);
    pgp_board_read(board, seat, 0, NOW, &stats);
    ck_assert_int_eq(stats.n[PGP_N_ACQUIRES], 0);
    pgp_board_publish(board, seat, 0, &more);
    pgp_board_leave(board, seat, NOW);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 1);
}
END_TEST

/* --- seats ------------------------------------------------------------------ */

START_TEST(each_child_has_a_seat)
{
    int i, pid;

    for (i = 0; i < SEATS; i++) {
        locks->pid = 100 + i;
        ck_assert_int_eq(pgp_board_claim(board, NOW), i);
    }
    ck_assert_int_eq(pgp_board_claim(board, NOW), -1);
    ck_assert(pgp_board_counts(board, 2, &pid));
    ck_assert_int_eq(pid, 102);
    pgp_board_leave(board, 2, NOW);
    ck_assert(!pgp_board_counts(board, 2, &pid));
    /* Its permits count for PGP_BOARD_GRACE, so nobody gets the seat before. */
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_BOARD_GRACE - 1), -1);
    locks->pid = 999;
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_BOARD_GRACE), 2);
    ck_assert(pgp_board_counts(board, 2, &pid));
    ck_assert_int_eq(pid, 999);
}
END_TEST

#define DYING 555

/* A child has a seat, two permits, a wait and figures, and dies without leave().  Returns its
 * seat. */
static int dead_child(void)
{
    const pgp_stats stats = {.n[PGP_N_ACQUIRES] = 7,
                             .state[PGP_IDLE] = 2,
                             .state[PGP_IN_USE] = 1,
                             .longest[PGP_TIME_WAIT] = 30,
                             .longest[PGP_TIME_HOLD] = 40};
    const int pid = locks->pid;
    pgp_quota quota;
    int seat;

    locks->pid = DYING;
    seat = pgp_board_claim(board, NOW);
    REQUIRE(seat >= 0, "no seat");
    quota = quota_of(seat);
    REQUIRE(pgp_permits_take(&quota, NOW), "no permit");
    REQUIRE(pgp_permits_take(&quota, NOW), "no permit");
    pgp_permits_set_wait(&quota, NOW);
    pgp_board_publish(board, seat, 0, &stats);
    fake_locks_die(locks, DYING);
    locks->pid = pid;
    return seat;
}

START_TEST(ended_child_is_folded)
{
    const unsigned flips = pgp_board_flips(board);
    pgp_stats stats;
    int pid;

    dead_child();
    ck_assert(pgp_board_counts(board, 0, &pid)); /* nobody has folded it yet */
    ck_assert_int_eq(pid, 0);
    pgp_board_read(board, 0, 0, NOW, &stats);
    ck_assert_int_eq(stats.n[PGP_N_ACQUIRES], 7);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 0);
    ck_assert_int_eq(used(NOW), 2);
    pgp_board_reap(board, NOW + 1);
    ck_assert(!pgp_board_counts(board, 0, &pid));
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE), 2); /* the server may not know yet */
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE + 1), 0);
    ck_assert_int_eq(totals_of(0).n[PGP_N_CLOSES + PGP_REASON_KILLED], 3);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    ck_assert_uint_ne(pgp_board_flips(board), flips);
}
END_TEST

START_TEST(counters_of_ended_children_are_added_up)
{
    pgp_stats totals;

    dead_child();
    dead_child();
    pgp_board_reap(board, NOW);
    totals = totals_of(0);
    ck_assert_int_eq(totals.n[PGP_N_ACQUIRES], 14);
    ck_assert_int_eq(totals.longest[PGP_TIME_WAIT], 30);
    ck_assert_int_eq(totals.longest[PGP_TIME_HOLD], 40);
}
END_TEST

START_TEST(ended_child_is_folded_once)
{
    pgp_stats stats;

    dead_child();
    pgp_board_reap(board, NOW);
    pgp_board_reap(board, NOW + STEP);
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_BOARD_GRACE), 0);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    pgp_board_read(board, 0, 0, NOW, &stats);
    ck_assert_int_eq(stats.n[PGP_N_ACQUIRES], 0);
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE), 0);
}
END_TEST

START_TEST(seats_for_old_generations)
{
    static const struct {
        int children, seats;
    } rows[] = {{1, 257}, {16, 272}, {150, 600}, {256, 1024}, {400, 1424}, {20000, 21024}};
    int i;

    for (i = 0; i < LENGTH(rows); i++)
        ck_assert_int_eq(pgp_board_seats_for(rows[i].children), rows[i].seats);
}
END_TEST

/* A child keeps its seat until it ends: its lock decides. */
START_TEST(seat_of_a_living_child_is_not_taken)
{
    int i;

    for (i = 0; i < SEATS; i++)
        pgp_board_claim(board, NOW);
    pgp_board_reap(board, NOW);
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_SEC(10)), -1);
}
END_TEST

START_TEST(one_child_at_a_time_reaps)
{
    dead_child();
    pgp_board_reap(board, NOW);
    dead_child();
    pgp_board_reap(board, NOW + STEP - 1); /* another child has just looked */
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    locks->taken[SEATS] = 1; /* another child looks */
    pgp_board_reap(board, NOW + STEP);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    locks->taken[SEATS] = 0;
    pgp_board_reap(board, NOW + STEP);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 14);
}
END_TEST

START_TEST(child_that_leaves_meanwhile_is_folded_later)
{
    const pgp_stats stats = {.n[PGP_N_ACQUIRES] = 3};
    const int seat = pgp_board_claim(board, NOW);

    pgp_board_publish(board, seat, 0, &stats);
    locks->taken[SEATS] = 1; /* another child looks for the ended */
    pgp_board_leave(board, seat, NOW);
    locks->taken[SEATS] = 0;
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 0);
    pgp_board_reap(board, NOW);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 3);
}
END_TEST

/* After reap() its wait does not count any more, but its permits do, for PGP_BOARD_GRACE. */
START_TEST(wait_of_an_ended_child_does_not_count)
{
    const pgp_quota other = quota_of(1);
    pgp_outlook look;

    dead_child();
    pgp_permits_look(&other, NOW, PGP_SEC(3), &look);
    ck_assert_int_eq(look.waiting, 1);
    pgp_board_reap(board, NOW);
    pgp_permits_look(&other, NOW, PGP_SEC(3), &look);
    ck_assert_int_eq(look.waiting, 0);
    ck_assert_int_eq(look.used, 2);
}
END_TEST

/* --- processes: real locks -------------------------------------------------- */

static void real_begin(void)
{
    pgp_locks real;

    apr_pool_create(&memory, NULL);
    REQUIRE(pgp_locks_create(&real, memory, pgp_board_locks(SEATS, PLACES)) == APR_SUCCESS,
            "no locks");
    board_make(&real);
}

/* Fork a child that has a seat and has published; it sleeps until it is killed. */
static pid_t child_begun(int lent, apr_time_t now)
{
    pgp_stats stats = {.n[PGP_N_ACQUIRES] = lent};
    int ready[2], seat;
    pid_t pid;
    char byte;

    REQUIRE(pipe(ready) == 0, "no pipe");
    pid = fork();
    if (pid == 0) {
        seat = pgp_board_claim(board, now);
        pgp_board_publish(board, seat, 0, &stats);
        if (write(ready[1], &byte, seat >= 0) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    close(ready[1]);
    REQUIRE(read(ready[0], &byte, 1) == 1, "a child without a seat");
    close(ready[0]);
    return pid;
}

static void child_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    REQUIRE(waitpid(pid, NULL, 0) == pid, "it does not end");
}

START_TEST(kernel_tells_which_child_lives)
{
    const pid_t first = child_begun(1, NOW), second = child_begun(2, NOW);
    int pid, mine;

    mine = pgp_board_claim(board, NOW);
    ck_assert_int_eq(mine, 2);
    ck_assert(pgp_board_counts(board, 0, &pid));
    ck_assert_int_eq(pid, first);
    ck_assert(pgp_board_counts(board, 1, &pid));
    ck_assert_int_eq(pid, second);
    ck_assert(pgp_board_counts(board, mine, &pid));
    ck_assert_int_eq(pid, getpid());
    child_kill(first);
    pgp_board_reap(board, NOW);
    ck_assert(!pgp_board_counts(board, 0, &pid));
    ck_assert(pgp_board_counts(board, 1, &pid));
    ck_assert(pgp_board_counts(board, mine, &pid)); /* reap() has left its own seat */
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 1);
    child_kill(second);
}
END_TEST

/* A child dies, and a program that it has started (a CGI program) lives on: that program does
 * not keep the child's lock. */
START_TEST(program_that_a_child_starts_keeps_no_lock)
{
    const pid_t child = fork();
    int pid, status;

    if (child == 0) {
        pgp_board_claim(board, NOW);
        if (fork() == 0) {
            alarm(30);
            for (;;)
                pause();
        }
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child, "it does not end");
    pgp_board_counts(board, 0, &pid);
    ck_assert_int_eq(pid, 0);
    pgp_board_reap(board, NOW);
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_BOARD_GRACE), 0);
}
END_TEST

START_TEST(living_child_keeps_its_place)
{
    const pid_t child = child_begun(1, NOW);

    configure(&b, NULL);
    configure(&b, NULL);
    ck_assert_int_eq(configure(&b, &c), 1);
    child_kill(child);
    ck_assert_int_eq(configure(&b, &c), 0);
}
END_TEST

/* Run reap() in a process of its own for `most` machine instructions, or for `most_flipped`
 * after its first flip of the totals, and kill the process.  Returns how many instructions it
 * ran; -1 if this system allows no tracing. */
static long reaper_killed_after(long most, long most_flipped, apr_time_t now)
{
    const unsigned flips = pgp_board_flips(board);
    const pid_t pid = fork();
    long ran = 0, flipped = 0;
    int status;

    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(1);
        raise(SIGSTOP);
        pgp_board_reap(board, now);
        raise(SIGSTOP);
    }
    REQUIRE(waitpid(pid, &status, 0) == pid, "it does not stop");
    if (!WIFSTOPPED(status))
        return -1;
    for (; ran < most && flipped < most_flipped; ran++) {
        ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
        waitpid(pid, &status, 0);
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        flipped += pgp_board_flips(board) != flips;
    }
    child_kill(pid);
    return ran;
}

/* The sum over totals and seats, as the status page adds it up. */
static apr_uint64_t acquires_in_all(void)
{
    apr_uint64_t sum = totals_of(0).n[PGP_N_ACQUIRES];
    pgp_stats stats;
    int seat, pid;

    for (seat = 0; seat < SEATS; seat++)
        if (pgp_board_counts(board, seat, &pid)) {
            pgp_board_read(board, seat, 0, NOW, &stats);
            sum += stats.n[PGP_N_ACQUIRES];
        }
    return sum;
}

/* The thread sanitizer makes 50 instructions of one, and does not see other processes. */
#ifdef __SANITIZE_THREAD__
#define STEPS_ARE_DEAR 1
#else
#define STEPS_ARE_DEAR 0
#endif

static apr_time_t fold_now;
static apr_uint64_t fold_sum;

/* Two more children die, and nobody has folded them yet. */
static void two_die(void)
{
    fold_now += PGP_SEC(1);
    child_kill(child_begun(1, fold_now));
    child_kill(child_begun(10, fold_now));
    fold_sum += 11;
}

static void sum_holds(long most, long most_flipped)
{
    if (totals_of(0).n[PGP_N_ACQUIRES] == fold_sum) /* all are folded */
        two_die();
    reaper_killed_after(most, most_flipped, fold_now += STEP);
    ck_assert_uint_eq(acquires_in_all(), fold_sum);
}

#define KILLS 10
#define KILLS_FLIPPED 32

/* Children die; then one process after the other dies in reap(), each at a later instruction.
 * The sums stay the same.  After the flip the test tries each of the first KILLS_FLIPPED
 * instructions. */
START_TEST(fold_survives_a_kill_at_any_instruction)
{
    long all, i;

    if (STEPS_ARE_DEAR)
        return;
    fold_now = NOW;
    two_die();
    all = reaper_killed_after(LONG_MAX, LONG_MAX, fold_now += STEP);
    if (all < 0)
        return; /* this system allows no tracing */
    for (i = 0; i < KILLS; i++)
        sum_holds((all * i + rand() % all) / KILLS, LONG_MAX);
    for (i = 1; i < KILLS_FLIPPED; i++)
        sum_holds(LONG_MAX, i);
    pgp_board_reap(board, fold_now + STEP);
    ck_assert_uint_eq(totals_of(0).n[PGP_N_ACQUIRES], fold_sum);
}
END_TEST

/* --- hostile memory --------------------------------------------------------- */

static apr_uint64_t *shared;
static apr_size_t shared_words;

static void shared_find(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long begin, end;
    char line[512];

    while (fgets(line, sizeof line, maps))
        if (strstr(line, "mod_pgpool-board") && sscanf(line, "%lx-%lx", &begin, &end) == 2) {
            shared = (apr_uint64_t *)begin;
            shared_words = (end - begin) / sizeof(*shared);
        }
    fclose(maps);
    REQUIRE(shared, "no shared memory");
}

/* The parent makes the shared memory, and neither reads nor writes it afterwards. */
START_TEST(parent_touches_no_shared_memory)
{
    const pid_t child = child_begun(1, NOW);

    shared_find();
    REQUIRE(!mprotect(shared, shared_words * sizeof(*shared), PROT_NONE), "no protection");
    configure(&a, &b);
    configure(&b, NULL);
    configure(&b, NULL);
    configure(&b, &c);
    ck_assert_int_eq(pgp_board_place(board, &b), 1);
    child_kill(child);
}
END_TEST

static void fill(int how)
{
    apr_size_t i;

    for (i = 0; i < shared_words; i++) {
        const apr_uint64_t random = (apr_uint64_t)rand() << 42 ^ (apr_uint64_t)rand() << 21 ^
                                    (apr_uint64_t)rand();

        shared[i] = how == 0   ? 0
                    : how == 1 ? APR_UINT64_C(0x100000001)
                    : how == 2 ? ~APR_UINT64_C(0)
                    : how == 3 ? APR_UINT64_C(0x7fffffff7fffffff)
                    : how == 4 ? APR_UINT64_C(0x8000000080000000)
                    : how == 5 ? APR_UINT64_C(0x8000000000000000)
                               : random;
    }
}

static void figures_are_sane(const pgp_stats *stats, apr_time_t now)
{
    int i;

    for (i = 0; i < PGP_COUNTERS; i++)
        ck_assert(stats->n[i] <= APR_UINT64_C(1) << 53);
    for (i = 0; i < PGP_STATES; i++)
        ck_assert(stats->state[i] >= 0 && stats->state[i] <= 100000);
    ck_assert(stats->waiting >= 0 && stats->failures >= 0);
    ck_assert(stats->longest[PGP_TIME_WAIT] >= 0 && stats->longest[PGP_TIME_HOLD] >= 0);
    ck_assert(stats->error_at >= 0 && stats->error_at <= now);
    ck_assert(memchr(stats->error.message, 0, sizeof stats->error.message));
    ck_assert(memchr(stats->error.sqlstate, 0, sizeof stats->error.sqlstate));
    for (i = 0; i < PGP_BORROWERS; i++) {
        ck_assert(stats->borrowers[i].since >= 0 && stats->borrowers[i].since <= now);
        ck_assert(memchr(stats->borrowers[i].client, 0, sizeof stats->borrowers[i].client));
        ck_assert(memchr(stats->borrowers[i].what, 0, sizeof stats->borrowers[i].what));
    }
}

static void use_permits(int seat, int row, apr_time_t now)
{
    const pgp_quota quota = {.board = board, .seat = seat, .row = row, .cap = 10};
    pgp_outlook look;

    pgp_permits_look(&quota, now, PGP_SEC(3), &look);
    ck_assert(look.used >= 0 && look.free >= 0 && look.free <= 10 && look.coming >= 0);
    ck_assert(look.waiting >= 0 && look.waiting <= SEATS);
    ck_assert(look.ahead >= 0 && look.ahead <= SEATS);
    ck_assert(look.idlest >= -1 && look.idlest < SEATS);
    ck_assert(look.first_since >= 0 && look.idle_since >= 0 && look.turn > 0);
    if (pgp_permits_take(&quota, now))
        pgp_permits_give(&quota);
    pgp_permits_set_wait(&quota, now);
    pgp_permits_ring(&quota, now, PGP_SEC(3));
    pgp_permits_pass(&quota, pgp_permits_turn(&quota), now);
    pgp_permits_set_turn(&quota, &look, now);
}

/* Call all that an honest child calls, in memory that is full of hostile words. */
static void use_all(apr_time_t now, int how)
{
    const pgp_stats published = {.n[PGP_N_ACQUIRES] = 5};
    pgp_gate_count count;
    pgp_stats stats;
    int seat, s, p, pid;

    fill(how);
    seat = pgp_board_claim(board, now);
    fill(how);
    pgp_board_reap(board, now);
    for (p = 0; p < PLACES; p++) {
        pgp_gate_pass(pgp_board_gate(board, p, PGP_GATE_CONNECT), now, PGP_SEC(60), &count);
        pgp_gate_close(pgp_board_gate(board, p, PGP_GATE_CONNECT), now, 0, &count);
        for (s = -1; s < SEATS; s++) {
            pgp_board_read(board, s, p, now, &stats);
            figures_are_sane(&stats, now);
        }
    }
    for (s = 0; s < SEATS; s++)
        pgp_board_counts(board, s, &pid);
    if (seat < 0)
        return;
    for (p = 0; p < PLACES; p++) {
        use_permits(seat, pgp_board_pool_row(board, p), now);
        use_permits(seat, pgp_board_server_row(board, p), now);
        pgp_board_publish(board, seat, p, &published);
    }
    fill(how);
    pgp_board_leave(board, seat, now);
}

/* Hostile words do no harm: an honest child can claim a seat and take a permit afterwards. */
START_TEST(hostile_memory)
{
    apr_time_t now = NOW;
    pgp_quota quota;
    int how, seat;

    shared_find();
    configure(&a, &b);
    for (how = 0; how < 20; how++) {
        now += PGP_SEC(10);
        use_all(now, how);
        ck_assert_int_eq(configure(&a, &b), 0);
    }
    pgp_board_reap(board, now += PGP_SEC(10)); /* nobody holds the seats that look used */
    seat = pgp_board_claim(board, now += PGP_SEC(10));
    ck_assert_int_ge(seat, 0);
    quota = (pgp_quota){.board = board, .seat = seat, .row = 0, .cap = 1};
    ck_assert(pgp_permits_take(&quota, now));
}
END_TEST

/* The least word plus some time is less than the time, if the sum overflows. */
START_TEST(hostile_word_does_not_stop_reaping)
{
    dead_child();
    atomic_store(&board->head->reaped_at, APR_INT64_MIN);
    pgp_board_reap(board, NOW + 1);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
}
END_TEST

/* --- figures ---------------------------------------------------------------- */

#define PUBLISHED 2000

static atomic_int published_all;

static void *publish(void *unused)
{
    pgp_stats stats;
    int i, k;

    memset(&stats, 0, sizeof stats);
    for (i = 1; i <= PUBLISHED; i++) {
        for (k = 0; k < PGP_COUNTERS; k++)
            stats.n[k] = i;
        pgp_board_publish(board, 0, 0, &stats);
        apr_sleep(10);
    }
    atomic_store(&published_all, 1);
    return NULL;
}

/* If the writer loses its processor in the middle, some figures are newer than others; but no
 * figure goes backwards. */
static void figures_read(pgp_stats *last)
{
    const pgp_stats before = *last;
    int k;

    pgp_board_read(board, 0, 0, NOW, last);
    for (k = 0; k < PGP_COUNTERS; k++)
        REQUIRE(last->n[k] >= before.n[k], "it goes backwards");
}

START_TEST(figures_are_read_while_they_are_published)
{
    pthread_t writer;
    pgp_stats last;
    int k;

    memset(&last, 0, sizeof last);
    pgp_board_claim(board, NOW);
    pthread_create(&writer, NULL, publish, NULL);
    while (!atomic_load(&published_all))
        figures_read(&last);
    pthread_join(writer, NULL);
    figures_read(&last);
    for (k = 0; k < PGP_COUNTERS; k++)
        ck_assert_int_eq(last.n[k], PUBLISHED);
}
END_TEST

/* --- one child logs for all ------------------------------------------------- */

START_TEST(one_child_logs_for_all)
{
    pgp_gate_count count;

#define GATE(when, period)                                                                     \
    pgp_gate_pass(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW + (when), period, &count)
    ck_assert(GATE(0, PGP_SEC(60)));
    ck_assert_int_eq(count.events, 1);
    ck_assert_int_eq(count.lasted, 0);
    ck_assert(!GATE(0, PGP_SEC(60)));
    ck_assert(!GATE(PGP_SEC(59), PGP_SEC(60)));
    ck_assert(!GATE(PGP_SEC(99), PGP_NEVER));
    ck_assert(GATE(PGP_SEC(99), PGP_SEC(60)));
    ck_assert_int_eq(count.events, 4);
    ck_assert_int_eq(count.lasted, PGP_SEC(99));
    ck_assert(!GATE(PGP_SEC(100), PGP_SEC(60)));
    ck_assert(pgp_gate_close(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW + PGP_SEC(101), 0,
                             &count));
    ck_assert_int_eq(count.events, 1);
    ck_assert_int_eq(count.lasted, PGP_SEC(101));
    ck_assert(!pgp_gate_close(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW + PGP_SEC(101), 0,
                              &count));
    ck_assert(GATE(PGP_SEC(102), PGP_SEC(60)));
    ck_assert_int_eq(count.lasted, 0);
    ck_assert(!pgp_gate_close(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW + PGP_SEC(103),
                              PGP_SEC(2), &count));
    ck_assert(pgp_gate_close(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW + PGP_SEC(104),
                             PGP_SEC(2), &count));
#undef GATE
    ck_assert(
        pgp_gate_pass(pgp_board_gate(board, 0, PGP_GATE_CAPACITY), NOW, PGP_NEVER, &count));
}
END_TEST

/* Two operators may order at the same time. */
START_TEST(order_leaves_the_other_one)
{
    pgp_orders orders;

    pgp_board_suspend(board, 0, NOW + PGP_SEC(60));
    pgp_board_reconnect(board, 0, NOW);
    orders = pgp_board_orders(board, 0, NOW + 1);
    ck_assert_int_eq(orders.suspended_until, NOW + PGP_SEC(60));
    ck_assert_int_eq(orders.reconnect_before, NOW);
    pgp_board_suspend(board, 0, 0);
    orders = pgp_board_orders(board, 0, NOW + 1);
    ck_assert_int_eq(orders.suspended_until, 0);
    ck_assert_int_eq(orders.reconnect_before, NOW);
    ck_assert_int_eq(pgp_board_orders(board, 1, NOW + 1).reconnect_before, 0);
}
END_TEST

/* --- the first ones to use a place ------------------------------------------- */

#define NEWCOMERS 1000

static _Atomic int rounds_begun, rounds_ended, new_place, lines_logged;

/* Give a place to a new pool, and let the other thread go on. */
static void newcomer_begin(int k)
{
    char server[32];
    const pgp_board_pool pool = {.name = "main", .server = server};

    snprintf(server, sizeof server, "dbname=%d", k);
    configure(&pool, NULL);
    atomic_store(&new_place, pgp_board_place(board, &pool));
    atomic_store(&rounds_begun, k);
}

static void newcomer_end(int k)
{
    while (atomic_load(&rounds_ended) < k)
        sched_yield();
}

static void *other_thread(void *act)
{
    for (int k = 1; k <= NEWCOMERS; k++) {
        while (atomic_load(&rounds_begun) < k)
            sched_yield();
        ((void (*)(void))act)();
        atomic_store(&rounds_ended, k);
    }
    return NULL;
}

static void reconnect_order(void)
{
    pgp_board_reconnect(board, atomic_load(&new_place), NOW);
}

/* Also the first two orders for a pool that has got its place may come at the same time. */
START_TEST(first_orders_do_not_undo_each_other)
{
    pthread_t other;

    pthread_create(&other, NULL, other_thread, (void *)reconnect_order);
    for (int k = 1; k <= NEWCOMERS; k++) {
        pgp_orders orders;

        newcomer_begin(k);
        pgp_board_suspend(board, new_place, NOW + PGP_SEC(60));
        newcomer_end(k);
        orders = pgp_board_orders(board, new_place, NOW + 1);
        ck_assert_int_eq(orders.suspended_until, NOW + PGP_SEC(60));
        ck_assert_int_eq(orders.reconnect_before, NOW);
    }
    pthread_join(other, NULL);
}
END_TEST

static void event_log(void)
{
    pgp_gate *gate = pgp_board_gate(board, atomic_load(&new_place), PGP_GATE_CONNECT);
    pgp_gate_count count;

    atomic_fetch_add(&lines_logged,
                     pgp_gate_pass(gate, NOW + atomic_load(&rounds_begun), PGP_NEVER, &count));
}

/* The children of a new pool may all fail to connect at once. */
START_TEST(first_events_are_logged_once)
{
    pthread_t other;

    pthread_create(&other, NULL, other_thread, (void *)event_log);
    for (int k = 1; k <= NEWCOMERS; k++) {
        atomic_store(&lines_logged, 0);
        newcomer_begin(k);
        event_log();
        newcomer_end(k);
        ck_assert_int_eq(lines_logged, 1);
    }
    pthread_join(other, NULL);
}
END_TEST

/* A child's attempt was under way when another child logged the end of the outage.  If it fails
 * afterwards, it must not log a new outage. */
START_TEST(late_failure_is_stale)
{
    pgp_gate *gate = pgp_board_gate(board, 0, PGP_GATE_CONNECT);
    pgp_gate_count count;

    ck_assert(!pgp_gate_is_stale(gate, NOW, NOW + 1));
    ck_assert(pgp_gate_pass(gate, NOW, PGP_NEVER, &count));
    ck_assert(pgp_gate_close(gate, NOW + 10, 0, &count));
    ck_assert(pgp_gate_is_stale(gate, NOW + 9, NOW + 12));
    ck_assert(!pgp_gate_is_stale(gate, NOW + 11, NOW + 12));
    atomic_store(&gate->closed, NOW + PGP_SEC(3600));
    ck_assert(!pgp_gate_is_stale(gate, NOW + 11, NOW + 12));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("board");
    TCase *t = tcase(suite, "board");

    tcase_add_checked_fixture(t, board_begin, NULL);
    tcase_add_test(t, pools_are_told_apart);
    tcase_add_test(t, place_is_given_to_another_pool);
    tcase_add_test(t, place_that_a_child_uses_is_kept);
    tcase_add_test(t, returning_pool_has_its_place);
    tcase_add_test(t, returning_pool_has_its_own_server);
    tcase_add_test(t, places_do_not_run_out);
    tcase_add_test(t, lock_that_is_taken_meanwhile_does_no_harm);
    tcase_add_test(t, new_pool_counts_from_zero);
    tcase_add_test(t, each_child_has_a_seat);
    tcase_add_test(t, seats_for_old_generations);
    tcase_add_test(t, ended_child_is_folded);
    tcase_add_test(t, counters_of_ended_children_are_added_up);
    tcase_add_test(t, ended_child_is_folded_once);
    tcase_add_test(t, seat_of_a_living_child_is_not_taken);
    tcase_add_test(t, one_child_at_a_time_reaps);
    tcase_add_test(t, child_that_leaves_meanwhile_is_folded_later);
    tcase_add_test(t, wait_of_an_ended_child_does_not_count);
    tcase_add_test(t, one_child_logs_for_all);
    tcase_add_test(t, order_leaves_the_other_one);
    tcase_add_test(t, first_orders_do_not_undo_each_other);
    tcase_add_test(t, first_events_are_logged_once);
    tcase_add_test(t, late_failure_is_stale);
    tcase_add_test(t, figures_are_read_while_they_are_published);
    tcase_add_test(t, hostile_memory);
    tcase_add_test(t, hostile_word_does_not_stop_reaping);
    t = tcase(suite, "processes");
    tcase_set_timeout(t, 240);
    tcase_add_checked_fixture(t, real_begin, NULL);
    tcase_add_test(t, kernel_tells_which_child_lives);
    tcase_add_test(t, program_that_a_child_starts_keeps_no_lock);
    tcase_add_test(t, living_child_keeps_its_place);
    tcase_add_test(t, fold_survives_a_kill_at_any_instruction);
    tcase_add_test(t, parent_touches_no_shared_memory);
    return suite_run(suite);
}
