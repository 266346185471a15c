/* The board: places, slots and their ended children, permits, figures, hostile memory. */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "stage.h"

#include "pgp_permits.h"

#define SLOTS 4
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
    const apr_status_t rv = pgp_board_create(&board, memory, SLOTS, PLACES, with);

    REQUIRE(rv == APR_SUCCESS, "no board");
    pgp_board_configure(board, &a, 1);
}

static void board_begin(void)
{
    pgp_locks fake;

    apr_pool_create(&memory, NULL);
    locks = fake_locks_make(memory, pgp_board_locks(SLOTS, PLACES));
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

static pgp_quota quota_of(int slot)
{
    return (pgp_quota){.board = board, .seat = slot, .row = 0, .cap = 10};
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
    ck_assert_int_eq(configure(&a, &c), 1); /* children that know b may yet come */
    ck_assert_int_eq(pgp_board_place(board, &c), -1);
    ck_assert_int_eq(pgp_board_place(board, &b), -1);
    ck_assert_int_eq(configure(&a, &c), 0);
    ck_assert_int_eq(pgp_board_place(board, &c), 1);
    ck_assert_int_eq(pgp_board_place(board, &a), 0);
}
END_TEST

START_TEST(place_that_a_child_uses_is_kept)
{
    int slot;

    configure(&a, &b);
    slot = pgp_board_claim(board, NOW);
    configure(&a, NULL);
    ck_assert_int_eq(configure(&a, &c), 1);
    pgp_board_leave(board, slot, NOW); /* it has no connection now, but may have again */
    ck_assert_int_eq(configure(&a, &c), 1);
    fake_locks_die(locks, locks->pid);
    ck_assert_int_eq(configure(&a, &c), 0);
}
END_TEST

START_TEST(pool_that_comes_back_has_its_place)
{
    configure(&a, &b);
    configure(&a, NULL);
    configure(&a, NULL);
    ck_assert_int_eq(configure(&b, &a), 0);
    ck_assert_int_eq(pgp_board_place(board, &a), 0);
    ck_assert_int_eq(pgp_board_place(board, &b), 1);
}
END_TEST

/* The row of its server may have become another server's meanwhile. */
START_TEST(pool_that_comes_back_has_its_own_server)
{
    const pgp_board_pool all[] = {a, b, c};
    const pgp_locks fake = fake_locks_of(fake_locks_make(memory, pgp_board_locks(SLOTS, 4)));

    REQUIRE(pgp_board_create(&board, memory, SLOTS, 4, &fake) == APR_SUCCESS, "no board");
    configure(&a, &b);
    configure(&a, NULL);
    configure(&a, NULL);
    configure(&a, &c);
    ck_assert_int_eq(pgp_board_configure(board, all, 3), 0);
    ck_assert_int_ne(pgp_board_server_row(board, pgp_board_place(board, &b)),
                     pgp_board_server_row(board, pgp_board_place(board, &c)));
}
END_TEST

/* 20 configurations, each with another pool, and never a lack of places. */
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

/* Whether a process holds a place's lock is up to that process, at any moment. */
static int holder_that_comes_back(void *baton, int byte)
{
    static int asked;

    return asked++ ? 100 : 0;
}

START_TEST(lock_that_is_taken_meanwhile_leads_nowhere)
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

/* What a tenant has left, in a slot and in the totals, is not the next one's. */
START_TEST(new_pool_counts_from_zero)
{
    pgp_stats stats = {.n[PGP_N_ACQUIRES] = 7}, more = {.n[PGP_N_ACQUIRES] = 1};
    pgp_gate_count count;
    int slot = pgp_board_claim(board, NOW);

    pgp_board_publish(board, slot, 0, &stats);
    pgp_board_leave(board, slot, NOW);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    ck_assert(
        pgp_gate_pass(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW, PGP_NEVER, &count));
    fake_locks_die(locks, locks->pid);
    configure(&b, NULL);
    configure(&b, &c);
    ck_assert_int_eq(configure(&b, &d), 1);
    ck_assert_int_eq(configure(&b, &d), 0);
    ck_assert_int_eq(pgp_board_place(board, &d), 0);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 0);
    ck_assert(
        pgp_gate_pass(pgp_board_gate(board, 0, PGP_GATE_CONNECT), NOW, PGP_NEVER, &count));

    slot = pgp_board_claim(board, NOW);
    pgp_board_read(board, slot, 0, NOW, &stats);
    ck_assert_int_eq(stats.n[PGP_N_ACQUIRES], 0);
    pgp_board_publish(board, slot, 0, &more);
    pgp_board_leave(board, slot, NOW);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 1);
}
END_TEST

/* --- slots ------------------------------------------------------------------ */

START_TEST(each_child_has_a_slot)
{
    int i, pid;

    for (i = 0; i < SLOTS; i++) {
        locks->pid = 100 + i;
        ck_assert_int_eq(pgp_board_claim(board, NOW), i);
    }
    ck_assert_int_eq(pgp_board_claim(board, NOW), -1);
    ck_assert(pgp_board_counts(board, 2, &pid));
    ck_assert_int_eq(pid, 102);
    pgp_board_leave(board, 2, NOW);
    ck_assert(!pgp_board_counts(board, 2, &pid));
    /* Its permits count for a while, so the slot is not given away yet. */
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_BOARD_GRACE - 1), -1);
    locks->pid = 999;
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_BOARD_GRACE), 2);
    ck_assert(pgp_board_counts(board, 2, &pid));
    ck_assert_int_eq(pid, 999);
}
END_TEST

#define DOOMED 555

/* A child that dies without a word. */
static int child_that_died(void)
{
    const pgp_stats stats = {.n[PGP_N_ACQUIRES] = 7,
                             .state[PGP_IDLE] = 2,
                             .state[PGP_IN_USE] = 1,
                             .longest[PGP_TIME_WAIT] = 30,
                             .longest[PGP_TIME_HOLD] = 40};
    const int pid = locks->pid;
    pgp_quota quota;
    int slot;

    locks->pid = DOOMED;
    slot = pgp_board_claim(board, NOW);
    REQUIRE(slot >= 0, "no slot");
    quota = quota_of(slot);
    REQUIRE(pgp_permits_take(&quota, NOW), "no permit");
    REQUIRE(pgp_permits_take(&quota, NOW), "no permit");
    pgp_permits_wait(&quota, NOW);
    pgp_board_publish(board, slot, 0, &stats);
    fake_locks_die(locks, DOOMED);
    locks->pid = pid;
    return slot;
}

START_TEST(ended_one_is_folded)
{
    const unsigned flips = pgp_board_flips(board);
    pgp_stats stats;
    int pid;

    child_that_died();
    ck_assert(pgp_board_counts(board, 0, &pid)); /* nobody has folded it yet */
    ck_assert_int_eq(pid, 0);
    pgp_board_read(board, 0, 0, NOW, &stats);
    ck_assert_int_eq(stats.n[PGP_N_ACQUIRES], 7);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 0);
    ck_assert_int_eq(used(NOW), 2);
    pgp_board_reap(board, NOW + 1);
    ck_assert(!pgp_board_counts(board, 0, &pid));
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE), 2); /* perhaps the server knows not */
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE + 1), 0);
    ck_assert_int_eq(totals_of(0).n[PGP_N_CLOSES + PGP_REASON_KILLED], 3);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    ck_assert_uint_ne(pgp_board_flips(board), flips);
}
END_TEST

START_TEST(ended_are_added_up)
{
    pgp_stats totals;

    child_that_died();
    child_that_died();
    pgp_board_reap(board, NOW);
    totals = totals_of(0);
    ck_assert_int_eq(totals.n[PGP_N_ACQUIRES], 14);
    ck_assert_int_eq(totals.longest[PGP_TIME_WAIT], 30);
    ck_assert_int_eq(totals.longest[PGP_TIME_HOLD], 40);
}
END_TEST

START_TEST(ended_one_is_folded_once)
{
    pgp_stats stats;

    child_that_died();
    pgp_board_reap(board, NOW);
    pgp_board_reap(board, NOW + STEP);
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_BOARD_GRACE), 0);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    pgp_board_read(board, 0, 0, NOW, &stats);
    ck_assert_int_eq(stats.n[PGP_N_ACQUIRES], 0);
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE), 0);
}
END_TEST

START_TEST(slots_for_old_generations)
{
    static const struct {
        int children, slots;
    } rows[] = {{1, 257}, {16, 272}, {150, 600}, {256, 1024}, {400, 1424}, {20000, 21024}};
    int i;

    for (i = 0; i < LENGTH(rows); i++)
        ck_assert_int_eq(pgp_board_seats_for(rows[i].children), rows[i].slots);
}
END_TEST

/* Whatever its memory says, a slot is its child's until the child ends. */
START_TEST(slot_of_a_living_child_is_not_taken)
{
    int i;

    for (i = 0; i < SLOTS; i++)
        pgp_board_claim(board, NOW);
    pgp_board_reap(board, NOW);
    ck_assert_int_eq(pgp_board_claim(board, NOW + PGP_SEC(10)), -1);
}
END_TEST

START_TEST(one_looks_for_the_ended_at_a_time)
{
    child_that_died();
    pgp_board_reap(board, NOW);
    child_that_died();
    pgp_board_reap(board, NOW + STEP - 1); /* another child has just looked */
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    locks->taken[SLOTS] = 1; /* another child looks */
    pgp_board_reap(board, NOW + STEP);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 7);
    locks->taken[SLOTS] = 0;
    pgp_board_reap(board, NOW + STEP);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 14);
}
END_TEST

START_TEST(who_leaves_meanwhile_is_folded_later)
{
    const pgp_stats stats = {.n[PGP_N_ACQUIRES] = 3};
    const int slot = pgp_board_claim(board, NOW);

    pgp_board_publish(board, slot, 0, &stats);
    locks->taken[SLOTS] = 1; /* another child looks for the ended */
    pgp_board_leave(board, slot, NOW);
    locks->taken[SLOTS] = 0;
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 0);
    pgp_board_reap(board, NOW);
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 3);
}
END_TEST

/* Nobody gives up anything for it; its permits count for a while. */
START_TEST(ended_one_waits_for_nothing)
{
    const pgp_quota other = quota_of(1);
    pgp_outlook look;

    child_that_died();
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
    REQUIRE(pgp_locks_create(&real, memory, pgp_board_locks(SLOTS, PLACES)) == APR_SUCCESS,
            "no locks");
    board_make(&real);
}

/* A process of its own that has a slot and has published; it dies when it is killed. */
static pid_t child_begun(int lent, apr_time_t now)
{
    pgp_stats stats = {.n[PGP_N_ACQUIRES] = lent};
    int ready[2], slot;
    pid_t pid;
    char byte;

    REQUIRE(pipe(ready) == 0, "no pipe");
    pid = fork();
    if (pid == 0) {
        slot = pgp_board_claim(board, now);
        pgp_board_publish(board, slot, 0, &stats);
        if (write(ready[1], &byte, slot >= 0) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    close(ready[1]);
    REQUIRE(read(ready[0], &byte, 1) == 1, "a child without a slot");
    close(ready[0]);
    return pid;
}

static void child_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    REQUIRE(waitpid(pid, NULL, 0) == pid, "it does not end");
}

START_TEST(kernel_tells_who_lives)
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
    ck_assert(pgp_board_counts(board, mine, &pid)); /* it has not folded itself */
    ck_assert_int_eq(totals_of(0).n[PGP_N_ACQUIRES], 1);
    child_kill(second);
}
END_TEST

/* What a child starts (a CGI program) does not live in its stead. */
START_TEST(fork_of_a_child_holds_nothing)
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

/* Runs an reaper for so many machine instructions at most, or for so many after its first
 * flip, and kills it.  Returns how many it ran; -1 if this system allows no tracing. */
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

/* What a reader of the page would add up. */
static apr_uint64_t lent_in_all(void)
{
    apr_uint64_t sum = totals_of(0).n[PGP_N_ACQUIRES];
    pgp_stats stats;
    int slot, pid;

    for (slot = 0; slot < SLOTS; slot++)
        if (pgp_board_counts(board, slot, &pid)) {
            pgp_board_read(board, slot, 0, NOW, &stats);
            sum += stats.n[PGP_N_ACQUIRES];
        }
    return sum;
}

/* The thread sanitizer makes 50 instructions of one, and sees nothing of processes. */
#ifdef __SANITIZE_THREAD__
#define STEPS_ARE_DEAR 1
#else
#define STEPS_ARE_DEAR 0
#endif

static apr_time_t fold_now;
static apr_uint64_t fold_sum;

/* Two children that are not folded yet. */
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
    ck_assert_uint_eq(lent_in_all(), fold_sum);
}

#define KILLS 10
#define KILLS_FLIPPED 32

/* Children die, then one reaper after the other dies, each at a later instruction: the
 * sums stay what they are.  Behind the flip it is each instruction. */
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

/* The parent makes the memory, and leaves it alone. */
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
    ck_assert(stats->waiting >= 0 && stats->down >= 0);
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

static void use_permits(int slot, int row, apr_time_t now)
{
    const pgp_quota quota = {.board = board, .seat = slot, .row = row, .cap = 10};
    pgp_outlook look;

    pgp_permits_look(&quota, now, PGP_SEC(3), &look);
    ck_assert(look.used >= 0 && look.free >= 0 && look.free <= 10 && look.coming >= 0);
    ck_assert(look.waiting >= 0 && look.waiting <= SLOTS);
    ck_assert(look.ahead >= 0 && look.ahead <= SLOTS);
    ck_assert(look.idlest >= -1 && look.idlest < SLOTS);
    ck_assert(look.first_since >= 0 && look.idle_since >= 0 && look.turn > 0);
    if (pgp_permits_take(&quota, now))
        pgp_permits_give(&quota);
    pgp_permits_wait(&quota, now);
    pgp_permits_ring(&quota, now, PGP_SEC(3));
    pgp_permits_pass(&quota, pgp_permits_turn(&quota), now);
    pgp_permits_settle(&quota, &look, now);
}

/* All that an honest child does, in memory of which nothing is true. */
static void use_all(apr_time_t now, int how)
{
    const pgp_stats published = {.n[PGP_N_ACQUIRES] = 5};
    pgp_gate_count count;
    pgp_stats stats;
    int slot, s, p, pid;

    fill(how);
    slot = pgp_board_claim(board, now);
    fill(how);
    pgp_board_reap(board, now);
    for (p = 0; p < PLACES; p++) {
        pgp_gate_pass(pgp_board_gate(board, p, PGP_GATE_CONNECT), now, PGP_SEC(60), &count);
        pgp_gate_close(pgp_board_gate(board, p, PGP_GATE_CONNECT), now, 0, &count);
        for (s = -1; s < SLOTS; s++) {
            pgp_board_read(board, s, p, now, &stats);
            figures_are_sane(&stats, now);
        }
    }
    for (s = 0; s < SLOTS; s++)
        pgp_board_counts(board, s, &pid);
    if (slot < 0)
        return;
    for (p = 0; p < PLACES; p++) {
        use_permits(slot, pgp_board_pool_row(board, p), now);
        use_permits(slot, pgp_board_server_row(board, p), now);
        pgp_board_publish(board, slot, p, &published);
    }
    fill(how);
    pgp_board_leave(board, slot, now);
}

/* Hostile words do no harm, and when they are gone slots and totals work again. */
START_TEST(hostile_memory)
{
    apr_time_t now = NOW;
    pgp_quota quota;
    int how, slot;

    shared_find();
    configure(&a, &b);
    for (how = 0; how < 20; how++) {
        now += PGP_SEC(10);
        use_all(now, how);
        ck_assert_int_eq(configure(&a, &b), 0);
    }
    pgp_board_reap(board, now += PGP_SEC(10)); /* all slots that look used are ended */
    slot = pgp_board_claim(board, now += PGP_SEC(10));
    ck_assert_int_ge(slot, 0);
    quota = (pgp_quota){.board = board, .seat = slot, .row = 0, .cap = 1};
    ck_assert(pgp_permits_take(&quota, now));
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

/* Should the writer lose its processor in the middle, some are of a later moment; but
 * none goes backwards. */
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

/* --- what one child says for all -------------------------------------------- */

START_TEST(one_says_it_for_all)
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

/* A child's attempt that was under way when another child told the end must not tell a new
 * beginning. */
START_TEST(late_news_is_stale)
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
    tcase_add_test(t, pool_that_comes_back_has_its_place);
    tcase_add_test(t, pool_that_comes_back_has_its_own_server);
    tcase_add_test(t, places_do_not_run_out);
    tcase_add_test(t, lock_that_is_taken_meanwhile_leads_nowhere);
    tcase_add_test(t, new_pool_counts_from_zero);
    tcase_add_test(t, each_child_has_a_slot);
    tcase_add_test(t, slots_for_old_generations);
    tcase_add_test(t, ended_one_is_folded);
    tcase_add_test(t, ended_are_added_up);
    tcase_add_test(t, ended_one_is_folded_once);
    tcase_add_test(t, slot_of_a_living_child_is_not_taken);
    tcase_add_test(t, one_looks_for_the_ended_at_a_time);
    tcase_add_test(t, who_leaves_meanwhile_is_folded_later);
    tcase_add_test(t, ended_one_waits_for_nothing);
    tcase_add_test(t, one_says_it_for_all);
    tcase_add_test(t, late_news_is_stale);
    tcase_add_test(t, figures_are_read_while_they_are_published);
    tcase_add_test(t, hostile_memory);
    t = tcase(suite, "processes");
    tcase_set_timeout(t, 240);
    tcase_add_checked_fixture(t, real_begin, NULL);
    tcase_add_test(t, kernel_tells_who_lives);
    tcase_add_test(t, fork_of_a_child_holds_nothing);
    tcase_add_test(t, living_child_keeps_its_place);
    tcase_add_test(t, fold_survives_a_kill_at_any_instruction);
    tcase_add_test(t, parent_touches_no_shared_memory);
    return suite_run(suite);
}
