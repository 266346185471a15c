/* The outage (pgp_outage): failures, waits between attempts, futile waiting, probes. */
#include <string.h>

#include "pgp_pool_outage.h"
#include "stage.h"

#define NOW PGP_SEC(1000)

static const pgp_backoff retry = {.first = PGP_MS(100), .most = PGP_SEC(5)};

static apr_interval_time_t fails(pgp_outage *outage, const char *sqlstate, apr_time_t at,
                                 bool awaited)
{
    pgp_error error = {.message = "no"};

    strcpy(error.sqlstate, sqlstate);
    return pgp_outage_fail(outage,
                           &(pgp_failed_attempt){.error = &error,
                                                 .began = at,
                                                 .ended = at,
                                                 .awaited = awaited,
                                                 .random = 0xffffffff},
                           &retry);
}

/* --- waits ------------------------------------------------------------------ */

static const struct {
    const char *sqlstates[4];
    bool awaited;
    apr_interval_time_t wait; /* after the last failure, with the greatest jitter */
} waits[] = {
    {{""}, false, PGP_MS(100)},
    {{"", ""}, false, PGP_MS(200)},
    {{"", "", ""}, true, PGP_MS(400)},
    {{"", "", "53300"}, false, PGP_MS(400)}, /* the same kind, TRANSIENT */
    {{"28P01"}, false, PGP_SEC(5)},
    {{"57P03"}, true, PGP_MS(100)},
    {{"57P03", "57P03", "57P03"}, true, PGP_MS(100)},
    {{"57P03", "57P03", "57P03"}, false, PGP_MS(400)},
    {{"", "", "57P03"}, false, PGP_MS(100)}, /* a new kind begins anew */
};

START_TEST(wait_after)
{
    pgp_outage outage = {.failures = 0};
    apr_interval_time_t wait = 0;
    int i, n = 0;

    for (i = 0; waits[_i].sqlstates[i]; i++, n++)
        wait = fails(&outage, waits[_i].sqlstates[i], NOW + PGP_SEC(i), waits[_i].awaited);
    ck_assert_int_le(waits[_i].wait - wait, 1);
    ck_assert_int_le(wait, waits[_i].wait);
    ck_assert_int_eq(outage.failures, n);
    ck_assert_int_eq(outage.retry_at, outage.last + wait);
}
END_TEST

START_TEST(attempts_at_the_same_time_are_one)
{
    pgp_outage outage = {.failures = 0};
    const pgp_error error = {.message = "no"};
    const pgp_failed_attempt late = {
        .error = &error, .began = NOW - 1, .ended = NOW + 1, .random = 1};
    const apr_interval_time_t wait = fails(&outage, "", NOW, false);

    ck_assert_int_eq(pgp_outage_fail(&outage, &late, &retry), wait - 1);
    ck_assert_int_eq(outage.failures, 1);
}
END_TEST

/* --- futile ----------------------------------------------------------------- */

START_TEST(waiting_is_futile_after_the_patience)
{
    pgp_outage outage = {.failures = 0};

    ck_assert(!pgp_outage_is_futile(&outage, NOW, 0));
    fails(&outage, "", NOW, false);
    ck_assert(!pgp_outage_is_futile(&outage, NOW + PGP_SEC(2), PGP_SEC(2)));
    ck_assert(pgp_outage_is_futile(&outage, NOW + PGP_SEC(2) + 1, PGP_SEC(2)));
    pgp_outage_note_none_left(&outage, NOW + PGP_SEC(2));
    ck_assert(!pgp_outage_is_futile(&outage, NOW + PGP_SEC(4), PGP_SEC(2)));
    fails(&outage, "57P03", NOW + PGP_SEC(9), false);
    ck_assert(!pgp_outage_is_futile(&outage, NOW + PGP_SEC(10), PGP_SEC(2)));
    fails(&outage, "57P03", NOW + PGP_SEC(10), false);
    ck_assert(pgp_outage_is_futile(&outage, NOW + PGP_SEC(12), PGP_SEC(2)));
}
END_TEST

START_TEST(waiting_is_futile_after_a_rejection)
{
    pgp_outage outage = {.failures = 0};

    fails(&outage, "3D000", NOW, true);
    ck_assert(pgp_outage_is_futile(&outage, NOW, PGP_SEC(2)));
}
END_TEST

/* --- probing ---------------------------------------------------------------- */

static const struct {
    const char *sqlstate;
    bool absent, is_under_way;
    apr_interval_time_t after;
    bool may, is_due;
} probes[] = {
    {"", false, false, PGP_MS(99), false, false},
    {"", false, false, PGP_MS(100), true, true},
    {"", false, true, 1, true, false},
    {"", true, false, PGP_MS(9), false, false},
    {"", true, false, PGP_MS(10), true, true},
    {"57P03", false, false, PGP_MS(100), true, true},
    {"57P03", false, true, 1, true, false},
    {"53300", false, false, PGP_SEC(1), false, false},
    {"53300", false, true, PGP_SEC(1), false, false},
    {"28P01", false, true, 1, false, false},
};

START_TEST(caller_may_probe)
{
    pgp_outage outage = {.failures = 0};
    const apr_time_t now = NOW + probes[_i].after;

    fails(&outage, probes[_i].sqlstate, NOW, false);
    outage.error.absent = probes[_i].absent;
    outage.retry_at = NOW + PGP_SEC(60);
    ck_assert_int_eq(pgp_outage_may_probe(&outage, now, &retry, probes[_i].is_under_way),
                     probes[_i].may);
    ck_assert_int_eq(outage.retry_at == now, probes[_i].is_due);
    ck_assert_int_eq(outage.on_demand, probes[_i].is_due);
    ck_assert(!pgp_outage_has_failed_since(&outage, now));
    fails(&outage, "", now + 1, true);
    ck_assert(pgp_outage_has_failed_since(&outage, now));
    ck_assert(!outage.on_demand);
}
END_TEST

START_TEST(probes_do_not_lengthen_the_wait)
{
    pgp_outage outage = {.failures = 0};
    int i;

    fails(&outage, "", NOW, false);
    for (i = 1; i < 10; i++) {
        ck_assert(pgp_outage_may_probe(&outage, NOW + PGP_SEC(i), &retry, false));
        ck_assert_int_le(fails(&outage, "", NOW + PGP_SEC(i), true), PGP_MS(100));
    }
    ck_assert_int_le(fails(&outage, "", NOW + PGP_SEC(20), true), PGP_MS(200));
}
END_TEST

START_TEST(waiter_hastens_a_server_that_starts)
{
    pgp_outage outage = {.failures = 0};

    fails(&outage, "57P03", NOW, false);
    outage.retry_at = NOW + PGP_SEC(5);
    pgp_outage_hasten(&outage, NOW + PGP_MS(20), &retry);
    ck_assert_int_eq(outage.retry_at, NOW + PGP_MS(100));
    outage.retry_at = NOW + PGP_SEC(5);
    pgp_outage_hasten(&outage, NOW + PGP_SEC(1), &retry);
    ck_assert_int_eq(outage.retry_at, NOW + PGP_SEC(1));
    outage.kind = PGP_FAILURE_TRANSIENT;
    outage.retry_at = NOW + PGP_SEC(5);
    pgp_outage_hasten(&outage, NOW + PGP_SEC(1), &retry);
    ck_assert_int_eq(outage.retry_at, NOW + PGP_SEC(5));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outage");
    TCase *t = tcase(suite, "waits");

    tcase_add_loop_test(t, wait_after, 0, LENGTH(waits));
    tcase_add_test(t, attempts_at_the_same_time_are_one);
    t = tcase(suite, "futile");
    tcase_add_test(t, waiting_is_futile_after_the_patience);
    tcase_add_test(t, waiting_is_futile_after_a_rejection);
    t = tcase(suite, "probing");
    tcase_add_loop_test(t, caller_may_probe, 0, LENGTH(probes));
    tcase_add_test(t, probes_do_not_lengthen_the_wait);
    tcase_add_test(t, waiter_hastens_a_server_that_starts);
    return suite_run(suite);
}
