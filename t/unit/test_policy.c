/* The pool's policy (pgp_policy.h), compared with tables. */
#include "stage.h"

#include "pgp_policy.h"

#define CHANCE_LEAST 0u
#define CHANCE_HALF (1u << 31)
#define CHANCE_MOST UINT32_MAX

/* --- growth ----------------------------------------------------------------- */

static const struct {
    const char *when;
    pgp_demand demand;
    int start;
} growth[] = {
    {"nothing is wanted", {.free = 4}, 0},
    {"all of Min is there", {.min = 2, .live = 2, .free = 4}, 0},
    {"more than Min is there", {.min = 2, .live = 3, .free = 4}, 0},
    {"Min is not there: one at a time", {.min = 2, .free = 4}, 1},
    {"the first of Min is on its way", {.min = 2, .connecting = 1, .free = 4}, 0},
    {"one waits", {.live = 2, .free = 4, .waiting = 1}, 1},
    {"one waits for the one on its way", {.connecting = 1, .free = 4, .waiting = 1}, 0},
    {"many wait, from now on", {.free = 9, .waiting = 9}, 1},
    {"many wait: a step is not over",
     {.free = 9, .waiting = 9, .demand_age = PGP_MS(50) - 1},
     1},
    {"many wait: a step is over", {.free = 9, .waiting = 9, .demand_age = PGP_MS(50)}, 2},
    {"many wait: four steps are over", {.free = 9, .waiting = 9, .demand_age = PGP_MS(200)}, 5},
    {"many wait: some are on their way",
     {.connecting = 3, .free = 9, .waiting = 9, .demand_age = PGP_MS(200)},
     2},
    {"more are on their way than that",
     {.connecting = 7, .free = 9, .waiting = 9, .demand_age = PGP_MS(200)},
     0},
    {"no more than wait", {.free = 9, .waiting = 3, .demand_age = PGP_SEC(2)}, 3},
    {"no more than wait, on their way included",
     {.connecting = 2, .free = 9, .waiting = 3, .demand_age = PGP_SEC(2)},
     1},
    {"demand has gone", {.connecting = 3, .free = 9}, 0},
    {"no more than there are slots", {.free = 2, .waiting = 9, .demand_age = PGP_SEC(2)}, 2},
    {"no slot is left", {.live = 9, .waiting = 9, .demand_age = PGP_SEC(2)}, 0},
    {"many wait for ages", {.free = 9, .waiting = 20000, .demand_age = INT64_MAX}, 9},
    {"outage: one at a time",
     {.free = 9, .waiting = 9, .demand_age = PGP_SEC(2), .is_outage = true},
     1},
    {"outage: one is on its way",
     {.connecting = 1, .free = 9, .waiting = 9, .demand_age = PGP_SEC(2), .is_outage = true},
     0},
    {"outage: a probe though nobody waits", {.free = 4, .is_outage = true}, 1},
    {"outage: a probe though all of Min is there",
     {.min = 2, .live = 2, .free = 4, .is_outage = true},
     1},
    {"outage: the probe is on its way", {.connecting = 1, .free = 4, .is_outage = true}, 0},
};

START_TEST(growth_follows_demand)
{
    ck_assert_msg(pgp_policy_growth(&growth[_i].demand) == growth[_i].start, "%s: %d, not %d",
                  growth[_i].when, pgp_policy_growth(&growth[_i].demand), growth[_i].start);
}
END_TEST

/* --- retiring --------------------------------------------------------------- */

#define NOW PGP_SEC(10000)

static const struct {
    const char *when;
    apr_interval_time_t idle_timeout, idle;
    apr_time_t expires;
    int spare;
    pgp_reason reason;
} retiring[] = {
    {"young and spare", PGP_SEC(300), PGP_SEC(300) - 1, PGP_NEVER, 1, PGP_REASON_NONE},
    {"idle too long", PGP_SEC(300), PGP_SEC(300), PGP_NEVER, 1, PGP_REASON_IDLE},
    {"idle too long, but of Min", PGP_SEC(300), PGP_SEC(900), PGP_NEVER, 0, PGP_REASON_NONE},
    {"idle too long, below Min", PGP_SEC(300), PGP_SEC(900), PGP_NEVER, -2, PGP_REASON_NONE},
    {"idle for ever", PGP_NEVER, PGP_SEC(9000), PGP_NEVER, 1, PGP_REASON_NONE},
    {"not yet old", PGP_NEVER, 0, NOW + 1, 1, PGP_REASON_NONE},
    {"old", PGP_NEVER, 0, NOW, 1, PGP_REASON_LIFETIME},
    {"old, though of Min", PGP_NEVER, 0, NOW, 0, PGP_REASON_LIFETIME},
    {"old and idle too long", PGP_SEC(300), PGP_SEC(300), NOW - 1, 1, PGP_REASON_LIFETIME},
};

START_TEST(idle_connection_is_retired_in_time)
{
    const pgp_settings settings = {.idle_timeout = retiring[_i].idle_timeout};
    const pgp_slot conn = {.idle_since = NOW - retiring[_i].idle,
                           .expires = retiring[_i].expires};
    const pgp_reason reason = pgp_policy_retire(&conn, &settings, retiring[_i].spare, NOW);

    ck_assert_msg(reason == retiring[_i].reason, "%s: %s", retiring[_i].when,
                  pgp_reason_name(reason));
}
END_TEST

/* --- the need for a ping ---------------------------------------------------- */

static const struct {
    const char *when;
    apr_interval_time_t ping, idle;
    apr_time_t suspect_since;
    int due;
} pings[] = {
    {"fresh", PGP_SEC(30), PGP_SEC(30) - 1, 0, 0},
    {"idle too long", PGP_SEC(30), PGP_SEC(30), 0, 1},
    {"always, just returned", 0, 0, 0, 1},
    {"off, idle for ages", PGP_NEVER, PGP_SEC(9000), 0, 0},
    {"fresh, idle since before one died", PGP_SEC(30), 1000, NOW - 999, 1},
    {"off, idle since before one died", PGP_NEVER, 1000, NOW - 999, 1},
    {"returned when one died", PGP_NEVER, 1000, NOW - 1000, 0},
    {"returned since one died", PGP_NEVER, 1000, NOW - 2000, 0},
};

START_TEST(ping_when_due)
{
    const pgp_settings settings = {.ping = pings[_i].ping};
    const pgp_slot conn = {.idle_since = NOW - pings[_i].idle};
    const int due = pgp_policy_ping_due(&conn, &settings, pings[_i].suspect_since, NOW);

    ck_assert_msg(due == pings[_i].due, "%s: %d", pings[_i].when, due);
}
END_TEST

/* --- permits ---------------------------------------------------------------- */

static const struct {
    const char *when;
    pgp_outlook look;
    int for_wait, last, may;
} takes[] = {
    {"one is free, nobody waits", {.free = 1}, 1, 0, 1},
    {"none is free", {.free = 0}, 1, 1, 0},
    {"too many are taken", {.free = 0, .used = 9, .cap = 8}, 1, 1, 0},
    {"one is free, another child has waited longer",
     {.free = 1, .waiting = 2, .ahead = 1},
     1,
     1,
     0},
    {"two are free, another child has waited longer",
     {.free = 2, .waiting = 2, .ahead = 1},
     1,
     0,
     1},
    {"another child has waited less", {.free = 1, .waiting = 2}, 1, 0, 1},
    {"the last one, while a child has none", {.free = 1, .without = 3}, 1, 0, 0},
    {"the last one, for that child", {.free = 1, .without = 2}, 1, 1, 1},
    {"not the last one, while a child has none", {.free = 2, .without = 3}, 1, 0, 1},
    {"for Min, nobody waits", {.free = 1}, 0, 0, 1},
    {"for Min, somebody waits", {.free = 1, .waiting = 1, .ahead = 1}, 0, 0, 0},
    {"for Min, another is free for the one that waits",
     {.free = 2, .waiting = 1, .ahead = 1},
     0,
     0,
     1},
    {"for Min, the last one, while a child has none", {.free = 1, .without = 1}, 0, 1, 0},
    {"for Min, not the last one then", {.free = 2, .without = 1}, 0, 0, 1},
};

START_TEST(permits_are_taken_in_order)
{
    const int may = pgp_policy_may_take(&takes[_i].look, takes[_i].for_wait, takes[_i].last);

    ck_assert_msg(may == takes[_i].may, "%s: %d", takes[_i].when, may);
}
END_TEST

static const struct {
    int waiting;
    apr_interval_time_t connect_time, acquire_timeout;
    pgp_pace pace;
} paces[] = {
    {1, PGP_MS(5), PGP_SEC(2), {PGP_MS(10), PGP_MS(10)}},
    {12, PGP_MS(5), PGP_SEC(2), {PGP_MS(10), PGP_MS(120)}},
    {12, PGP_MS(2), PGP_SEC(2), {PGP_MS(6), PGP_MS(72)}},   /* three connects' time */
    {100, PGP_MS(5), PGP_SEC(2), {PGP_MS(5), PGP_MS(500)}}, /* a quarter of the timeout */
    {100, PGP_MS(5), PGP_SEC(20), {PGP_MS(10), PGP_SEC(1)}},
    {1000, PGP_MS(5), PGP_SEC(2), {PGP_MS(2), PGP_MS(500)}}, /* the shortest step */
    {0, PGP_MS(5), 0, {PGP_MS(10), 0}},
};

START_TEST(pace_of_turns)
{
    const pgp_pace pace = pgp_policy_pace(paces[_i].waiting, paces[_i].connect_time,
                                          paces[_i].acquire_timeout);

    ck_assert_int_eq(pace.step, paces[_i].pace.step);
    ck_assert_int_eq(pace.turn, paces[_i].pace.turn);
}
END_TEST

#define STEP PGP_MS(10)

static const struct {
    const char *when;
    pgp_outlook look;
    apr_time_t passed, turn;
} turns[] = {
    {"nobody waits", {.cap = 8}, 0, INT64_MAX},
    {"one waits", {.cap = 8, .waiting = 1, .first_since = NOW}, 0, NOW + STEP},
    {"five wait", {.cap = 8, .waiting = 5, .first_since = NOW}, 0, NOW + 5 * STEP},
    {"the last turn was a moment ago",
     {.cap = 8, .waiting = 1, .first_since = NOW - 2 * STEP},
     NOW,
     NOW + STEP},
    {"as many are closing as wait", {.cap = 8, .waiting = 2, .coming = 2}, 0, INT64_MAX},
    {"the most are on the way",
     {.cap = 8, .waiting = 5, .coming = 1, .connecting = 3, .first_since = NOW},
     0,
     INT64_MAX},
    {"one less than that",
     {.cap = 8, .waiting = 5, .coming = 1, .connecting = 2, .first_since = NOW},
     0,
     NOW + 5 * STEP},
};

START_TEST(next_turn)
{
    const pgp_pace pace = {.step = STEP, .turn = turns[_i].look.waiting * STEP};
    const apr_time_t turn = pgp_policy_turn(&turns[_i].look, &pace, turns[_i].passed);

    ck_assert_msg(turn == turns[_i].turn, "%s: %" APR_TIME_T_FMT, turns[_i].when, turn);
}
END_TEST

/* --- expiry ----------------------------------------------------------------- */

START_TEST(lifetime_less_a_fifth_at_most)
{
    const pgp_settings settings = {.max_lifetime = PGP_SEC(1000)};
    const apr_time_t least = NOW + PGP_SEC(800);

    ck_assert_int_eq(pgp_policy_expiry(&settings, NOW, CHANCE_LEAST), NOW + PGP_SEC(1000));
    ck_assert_int_eq(pgp_policy_expiry(&settings, NOW, CHANCE_HALF), NOW + PGP_SEC(900));
    ck_assert_int_ge(pgp_policy_expiry(&settings, NOW, CHANCE_MOST), least);
    ck_assert_int_lt(pgp_policy_expiry(&settings, NOW, CHANCE_MOST), least + PGP_MS(1));
}
END_TEST

START_TEST(longest_lifetime)
{
    const pgp_settings settings = {.max_lifetime = PGP_DAY * 365};

    ck_assert_int_eq(pgp_policy_expiry(&settings, NOW, CHANCE_LEAST), NOW + PGP_DAY * 365);
    ck_assert_int_ge(pgp_policy_expiry(&settings, NOW, CHANCE_MOST), NOW + PGP_DAY * 292);
}
END_TEST

START_TEST(no_lifetime)
{
    const pgp_settings settings = {.max_lifetime = PGP_NEVER};

    ck_assert_int_eq(pgp_policy_expiry(&settings, NOW, CHANCE_HALF), PGP_NEVER);
}
END_TEST

/* --- failures --------------------------------------------------------------- */

static const struct {
    const char *sqlstate;
    pgp_failure failure;
} failures[] = {
    {"", PGP_FAILURE_TRANSIENT},      /* connection refused */
    {"57P03", PGP_FAILURE_STARTING},  /* the database system is starting up */
    {"57P01", PGP_FAILURE_TRANSIENT}, /* the administrator ended it */
    {"53300", PGP_FAILURE_TRANSIENT}, /* too many connections */
    {"28P01", PGP_FAILURE_REJECTED},  /* wrong password */
    {"28000", PGP_FAILURE_REJECTED},  /* no such role, or not by pg_hba.conf */
    {"3D000", PGP_FAILURE_REJECTED},  /* no such database */
    {"3D", PGP_FAILURE_TRANSIENT},    {"42501", PGP_FAILURE_TRANSIENT},
};

START_TEST(failure_by_sqlstate)
{
    ck_assert_msg(pgp_policy_failure(failures[_i].sqlstate) == failures[_i].failure,
                  "\"%s\": %d", failures[_i].sqlstate,
                  pgp_policy_failure(failures[_i].sqlstate));
}
END_TEST

static const struct {
    pgp_failure failure;
    int failures;
    apr_uint32_t random;
    apr_interval_time_t wait;
} backoffs[] = {
    {PGP_FAILURE_TRANSIENT, 1, CHANCE_LEAST, 0},
    {PGP_FAILURE_TRANSIENT, 9, CHANCE_LEAST, 0},
    {PGP_FAILURE_TRANSIENT, 1, CHANCE_HALF, PGP_MS(50)},
    {PGP_FAILURE_TRANSIENT, 2, CHANCE_HALF, PGP_MS(100)},
    {PGP_FAILURE_TRANSIENT, 3, CHANCE_HALF, PGP_MS(200)},
    {PGP_FAILURE_TRANSIENT, 6, CHANCE_HALF, PGP_MS(1600)},
    {PGP_FAILURE_TRANSIENT, 7, CHANCE_HALF, PGP_MS(2500)},
    {PGP_FAILURE_TRANSIENT, 1000000, CHANCE_HALF, PGP_MS(2500)},
    {PGP_FAILURE_STARTING, 0, CHANCE_LEAST, PGP_MS(100)},
    {PGP_FAILURE_STARTING, 0, CHANCE_MOST, PGP_MS(100)},
    {PGP_FAILURE_STARTING, 1, CHANCE_HALF, PGP_MS(50)},
    {PGP_FAILURE_STARTING, 50, CHANCE_HALF, PGP_MS(2500)},
    {PGP_FAILURE_REJECTED, 1, CHANCE_LEAST, PGP_SEC(5)},
    {PGP_FAILURE_REJECTED, 50, CHANCE_MOST, PGP_SEC(5)},
};

START_TEST(backoff_by_table)
{
    const pgp_backoff backoff = {.first = PGP_MS(100), .most = PGP_SEC(5)};
    const apr_interval_time_t wait = pgp_policy_backoff(
        &backoff, backoffs[_i].failure, backoffs[_i].failures, backoffs[_i].random);

    ck_assert_msg(wait == backoffs[_i].wait, "%d: %ld us, not %ld", _i, (long)wait,
                  (long)backoffs[_i].wait);
}
END_TEST

/* With the greatest random number the wait comes close to its bound, but stays below. */
START_TEST(backoff_within_bounds)
{
    const pgp_backoff backoff = {.first = PGP_MS(1), .most = PGP_DAY};
    apr_interval_time_t cap = PGP_MS(1);
    int n;

    for (n = 1; n < 100; n++) {
        const apr_interval_time_t most = pgp_policy_backoff(&backoff, PGP_FAILURE_TRANSIENT, n,
                                                            CHANCE_MOST);

        ck_assert_int_lt(most, cap);
        ck_assert_int_ge(most, cap - cap / 1000 - 1);
        cap = cap * 2 < PGP_DAY ? cap * 2 : PGP_DAY;
    }
}
END_TEST

START_TEST(first_wait_is_the_greatest)
{
    const pgp_backoff backoff = {.first = PGP_MS(100), .most = PGP_MS(100)};

    ck_assert_int_eq(pgp_policy_backoff(&backoff, PGP_FAILURE_TRANSIENT, 9, CHANCE_HALF),
                     PGP_MS(50));
    ck_assert_int_eq(pgp_policy_backoff(&backoff, PGP_FAILURE_STARTING, 0, CHANCE_HALF),
                     PGP_MS(100));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy");
    TCase *t = tcase(suite, "policy");

    tcase_add_loop_test(t, growth_follows_demand, 0, LENGTH(growth));
    tcase_add_loop_test(t, idle_connection_is_retired_in_time, 0, LENGTH(retiring));
    tcase_add_loop_test(t, ping_when_due, 0, LENGTH(pings));
    tcase_add_loop_test(t, permits_are_taken_in_order, 0, LENGTH(takes));
    tcase_add_loop_test(t, pace_of_turns, 0, LENGTH(paces));
    tcase_add_loop_test(t, next_turn, 0, LENGTH(turns));
    tcase_add_test(t, lifetime_less_a_fifth_at_most);
    tcase_add_test(t, longest_lifetime);
    tcase_add_test(t, no_lifetime);
    tcase_add_loop_test(t, failure_by_sqlstate, 0, LENGTH(failures));
    tcase_add_loop_test(t, backoff_by_table, 0, LENGTH(backoffs));
    tcase_add_test(t, backoff_within_bounds);
    tcase_add_test(t, first_wait_is_the_greatest);
    return suite_run(suite);
}
