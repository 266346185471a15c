#include "fake.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <apr_strings.h>

#include "pgp_driver.h"

/* Not a round number, so that it is not mistaken for a duration. */
#define START (PGP_SEC(1234567) + 89)

struct fake_log {
    struct fake_log *before;
    char line[400];
};

static _Thread_local apr_interval_time_t hastened;

/* --- judging ---------------------------------------------------------------- */

static void watch_pool(pgp_pool *pool)
{
    pgp_counts counts;
    int i, sum = 0;

    pgp_pool_count(pool, &counts);
    for (i = 0; i < PGP_STATES; i++) {
        REQUIRE(counts.state[i] >= 0, "%d slots are %s", counts.state[i], pgp_state_name(i));
        sum += counts.state[i];
    }
    REQUIRE(sum == pgp_pool_settings(pool)->max, "%d slots of %d are left", sum,
            pgp_pool_settings(pool)->max);
    REQUIRE(!counts.waiting || !counts.state[PGP_IDLE], "%d wait while %d are idle",
            counts.waiting, counts.state[PGP_IDLE]);
}

static void watch(fake *world)
{
    int i;

    for (i = 0; i < FAKE_POOLS && world->watched[i]; i++)
        watch_pool(world->watched[i]);
}

static void enter(pgp_connection *link, const char *call)
{
    REQUIRE(atomic_fetch_add(&link->inside, 1) == 0, "%s(%d): another thread is inside", call,
            link->number);
    REQUIRE(!link->freed, "%s(%d): it is freed", call, link->number);
    watch(link->world);
}

static void enter_open(pgp_connection *link, const char *call)
{
    enter(link, call);
    REQUIRE(!link->closed, "%s(%d): it is closed", call, link->number);
}

static void leave(pgp_connection *link)
{
    atomic_fetch_sub(&link->inside, 1);
}

static void enter_ready(pgp_connection *link, const char *call)
{
    enter_open(link, call);
    REQUIRE(link->phase == FAKE_READY, "%s(%d): it is not ready", call, link->number);
}

/* --- the clock and chance --------------------------------------------------- */

static apr_time_t real_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * APR_USEC_PER_SEC + now.tv_nsec / 1000;
}

static apr_time_t env_now(void *baton)
{
    fake *world = baton;
    apr_time_t now = world->real_time ? real_now() : atomic_load(&world->now);

    now -= hastened;
    hastened = 0;
    return now;
}

static apr_uint32_t env_random(void *baton)
{
    fake *world = baton;

    watch(world);
    return world->random;
}

/* --- sleepers --------------------------------------------------------------- */

/* One that sleeps in env->wait(); on its stack. */
struct fake_sleeper {
    struct fake_sleeper *next;
    apr_time_t until;
};

static void sleeper_add(fake *world, struct fake_sleeper *sleeper)
{
    pthread_mutex_lock(&world->lock);
    sleeper->next = world->sleepers;
    world->sleepers = sleeper;
    pthread_mutex_unlock(&world->lock);
}

static void sleeper_remove(fake *world, struct fake_sleeper *sleeper)
{
    struct fake_sleeper **at = &world->sleepers;

    pthread_mutex_lock(&world->lock);
    while (*at != sleeper)
        at = &(*at)->next;
    *at = sleeper->next;
    pthread_mutex_unlock(&world->lock);
}

/* The test's time passes without a signal, so a sleeper looks at it again and again. */
static int sleep_in_test_time(fake *world, sem_t *sem, apr_time_t until)
{
    for (;;) {
        if (!world->drowsy && env_now(world) >= until)
            return 0;
        if (!world->drowsy && sem_trywait(sem) == 0)
            return 1;
        usleep(100);
    }
}

static int env_wait(void *baton, sem_t *sem, apr_time_t until)
{
    fake *world = baton;
    struct fake_sleeper sleeper = {.until = until};
    int woken;

    watch(world);
    sleeper_add(world, &sleeper);
    world->on_sleep();
    woken = world->real_time ? pgp_wait_monotonic(NULL, sem, until)
                             : sleep_in_test_time(world, sem, until);
    world->on_wake(woken);
    sleeper_remove(world, &sleeper);
    return woken;
}

apr_time_t fake_alarm(fake *world)
{
    const struct fake_sleeper *sleeper;
    apr_time_t first = INT64_MAX;

    pthread_mutex_lock(&world->lock);
    for (sleeper = world->sleepers; sleeper; sleeper = sleeper->next)
        if (sleeper->until < first)
            first = sleeper->until;
    pthread_mutex_unlock(&world->lock);
    return first;
}

void fake_pass(fake *world, apr_interval_time_t time)
{
    atomic_fetch_add(&world->now, time);
}

void fake_hasten(apr_interval_time_t time)
{
    hastened = time;
}

/* --- the log ---------------------------------------------------------------- */

static int env_log_wanted(void *baton, pgp_log_level level)
{
    return level <= ((fake *)baton)->log_level;
}

static void env_log_write(void *baton, pgp_log_level level, const char *line)
{
    fake *world = baton;
    struct fake_log *entry;

    watch(world);
    pthread_mutex_lock(&world->lock);
    entry = apr_palloc(world->p, sizeof(*entry));
    apr_cpystrn(entry->line, line, sizeof entry->line);
    entry->before = world->log;
    world->log = entry;
    pthread_mutex_unlock(&world->lock);
}

int fake_logged(fake *world, const char *text)
{
    struct fake_log *at;
    int n = 0;

    pthread_mutex_lock(&world->lock);
    for (at = world->log; at; at = at->before)
        n += strstr(at->line, text) != NULL;
    pthread_mutex_unlock(&world->lock);
    return n;
}

/* --- connecting and cleaning ------------------------------------------------ */

static void error_set(pgp_error *error, const fake_plan *plan, const char *what)
{
    apr_cpystrn(error->sqlstate, plan->sqlstate ? plan->sqlstate : "", sizeof error->sqlstate);
    error->absent = plan->absent;
    apr_snprintf(error->message, sizeof error->message, "the fake %s failed", what);
}

static void begin(pgp_connection *link, fake_phase phase, const fake_plan *plan)
{
    link->phase = phase;
    link->plan = *plan;
    link->begun = pgp_now(&link->world->env);
    link->awaited = 0;
}

static pgp_connection *link_made(fake *world)
{
    pgp_connection *link;

    pthread_mutex_lock(&world->lock);
    link = apr_pcalloc(world->p, sizeof(*link));
    link->world = world;
    link->idle = PGP_IDLE_QUIET;
    link->returned = PGP_RETURN_CLEAN;
    link->socket = world->socket;
    link->number = atomic_fetch_add(&world->opened, 1) + 1;
    link->before = world->last;
    world->last = link;
    pthread_mutex_unlock(&world->lock);
    return link;
}

static pgp_connection *drv_connect(const pgp_context *context, unsigned first_host, bool survey,
                                   void *owner, pgp_error *error)
{
    fake *world = context->env->baton;
    pgp_connection *link;

    watch(world);
    if (world->on_connect)
        world->on_connect(world);
    if (world->plan.at_once) {
        atomic_fetch_add(&world->failed, 1);
        error_set(error, &world->plan, "start");
        return NULL;
    }
    link = link_made(world);
    link->first_host = first_host;
    begin(link, FAKE_CONNECTING, &world->plan);
    return link;
}

static int time_taken(const pgp_connection *link)
{
    return pgp_now(&link->world->env) >= link->begun + link->plan.takes;
}

static pgp_step fails(pgp_connection *link, pgp_error *error)
{
    error_set(error, &link->plan, link->phase == FAKE_CONNECTING ? "connect" : "clean-up");
    if (link->phase == FAKE_CONNECTING)
        atomic_fetch_add(&link->world->failed, 1);
    link->phase = FAKE_BAD;
    return PGP_STEP_FAILED;
}

static pgp_step done(pgp_connection *link)
{
    link->returned = link->cleaned;
    link->phase = FAKE_READY;
    return PGP_STEP_DONE;
}

static pgp_step advance(pgp_connection *link, struct pollfd *await, pgp_error *error)
{
    *await = (struct pollfd){.fd = -1};
    if (link->plan.steps > 0) {
        link->plan.steps--;
        *await = (struct pollfd){.fd = link->world->ready_fd, .events = POLLOUT};
        return PGP_STEP_AGAIN;
    }
    if (link->plan.end == FAKE_HANGS || !time_taken(link))
        return PGP_STEP_AGAIN;
    return link->plan.end == FAKE_FAILS ? fails(link, error) : done(link);
}

static pgp_step step_closing(const pgp_connection *link, struct pollfd *await)
{
    *await = (struct pollfd){.fd = -1};
    return link->world->lingers && !link->ended ? PGP_STEP_AGAIN : PGP_STEP_DONE;
}

static pgp_step drv_step(pgp_connection *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step;

    enter(link, "step");
    REQUIRE(link->phase == FAKE_CONNECTING || link->phase == FAKE_CLEANING ||
                link->phase == FAKE_CLOSING,
            "step(%d): nothing is under way", link->number);
    step = link->phase == FAKE_CLOSING ? step_closing(link, await)
                                       : advance(link, await, error);
    link->awaited = step == PGP_STEP_AGAIN;
    leave(link);
    return step;
}

/* --- the rest of the driver ------------------------------------------------- */

static bool drv_is_alive(pgp_connection *link)
{
    int alive;

    enter_open(link, "is_alive");
    alive = !link->gone;
    leave(link);
    return alive;
}

static pgp_idle_state drv_check_idle(pgp_connection *link, pgp_error *error)
{
    pgp_idle_state idle;

    enter_ready(link, "check_idle");
    while (atomic_load(&link->stops))
        apr_sleep(1000);
    idle = link->idle;
    if (idle == PGP_IDLE_DEAD)
        *error = (pgp_error){.message = "the fake was closed while idle"};
    leave(link);
    return idle;
}

static bool drv_take_in(pgp_connection *link, pgp_error *error)
{
    enter_ready(link, "take_in");
    link->readings++;
    if (link->world->on_take_in)
        link->world->on_take_in(link->world);
    if (link->noisy)
        *error = (pgp_error){.message = "the fake is never quiet"};
    leave(link);
    return !link->noisy;
}

static void drv_last_words(pgp_connection *link, pgp_error *error)
{
    enter_open(link, "last_words");
    *error = link->last_words;
    leave(link);
}

static int answers(pgp_connection *link, pgp_error *error)
{
    if (!link->mute)
        return 1;
    link->phase = FAKE_BAD;
    apr_cpystrn(error->message, "the fake does not answer", sizeof error->message);
    return 0;
}

/* Collects the answer to the reset. */
static int is_reset(pgp_connection *link, pgp_error *error)
{
    if (link->idle != PGP_IDLE_RESET_PENDING)
        return 1;
    link->idle = PGP_IDLE_QUIET;
    if (!link->unclean)
        return 1;
    link->phase = FAKE_BAD;
    *error = (pgp_error){.sqlstate = "42501", .message = "the fake may not be reset"};
    return 0;
}

static bool drv_prepare(pgp_connection *link, bool ping, apr_time_t until, pgp_error *error)
{
    int good;

    enter_ready(link, "prepare");
    link->prepared++;
    link->pings += ping != 0;
    link->deadline = until;
    good = answers(link, error) && is_reset(link, error);
    leave(link);
    return good;
}

static bool drv_is_set(const pgp_connection *link, const pgp_vars *vars)
{
    return vars->n == 0;
}

static pgp_set_outcome drv_set(pgp_connection *link, const pgp_vars *vars, apr_time_t until,
                               pgp_error *error)
{
    pgp_set_outcome outcome = PGP_SET_DONE;

    enter_ready(link, "set");
    link->vars += vars->n;
    link->deadline = until;
    if (!answers(link, error))
        outcome = PGP_SET_FAILED;
    else if (link->refuses) {
        *error = (pgp_error){.sqlstate = "42704", .message = "the fake will not set that"};
        outcome = PGP_SET_DENIED;
    }
    leave(link);
    return outcome;
}

static pgp_return drv_finish_lease(pgp_connection *link)
{
    pgp_return returned;

    enter_ready(link, "finish_lease");
    returned = link->returned;
    if (returned != PGP_RETURN_CLEAN)
        link->phase = returned == PGP_RETURN_DIRTY ? FAKE_DIRTY : FAKE_BAD;
    leave(link);
    return returned;
}

static void drv_cleanup(pgp_connection *link)
{
    enter_open(link, "cleanup");
    REQUIRE(link->phase == FAKE_DIRTY, "cleanup(%d): it is not dirty", link->number);
    link->cleanings++;
    begin(link, FAKE_CLEANING, &link->cleaning);
    leave(link);
}

static void end(pgp_connection *link)
{
    fake *world = link->world;

    if (world->on_close)
        world->on_close(world, link);
    link->closed = 1;
    link->phase = FAKE_CLOSING;
    atomic_fetch_add(&world->closed, 1);
}

static void drv_close(pgp_connection *link)
{
    enter_open(link, "close");
    end(link);
    leave(link);
}

static void drv_destroy(pgp_connection *link)
{
    enter(link, "destroy");
    if (!link->closed)
        end(link);
    link->freed = 1;
    leave(link);
}

static int drv_capacity(const pgp_connection *link)
{
    return link->world->capacity;
}

static const char *drv_tls(const pgp_connection *link)
{
    return link->world->tls;
}

static unsigned drv_backend(const pgp_connection *link)
{
    enter_open((pgp_connection *)link, "backend");
    leave((pgp_connection *)link);
    return 1000 + link->number;
}

static int drv_socket(const pgp_connection *link)
{
    return link->socket;
}

static void *drv_handle(const pgp_connection *link)
{
    enter_ready((pgp_connection *)link, "handle");
    leave((pgp_connection *)link);
    return (pgp_connection *)link;
}

static const pgp_driver driver = {
    .connect = drv_connect,
    .step = drv_step,
    .is_alive = drv_is_alive,
    .check_idle = drv_check_idle,
    .take_in = drv_take_in,
    .last_words = drv_last_words,
    .prepare = drv_prepare,
    .is_set = drv_is_set,
    .set = drv_set,
    .finish_lease = drv_finish_lease,
    .cleanup = drv_cleanup,
    .close = drv_close,
    .destroy = drv_destroy,
    .capacity = drv_capacity,
    .tls = drv_tls,
    .backend = drv_backend,
    .socket = drv_socket,
    .handle = drv_handle,
};

/* --- for the test ----------------------------------------------------------- */

fake *fake_make(apr_pool_t *p)
{
    fake *world = apr_pcalloc(p, sizeof(*world));

    world->p = p;
    world->env = (pgp_env){.baton = world,
                           .now = env_now,
                           .wait = env_wait,
                           .random = env_random,
                           .log_wanted = env_log_wanted,
                           .log_write = env_log_write,
                           .driver = &driver};
    world->random = 1u << 31;
    world->log_level = PGP_LOG_DEBUG;
    world->now = START;
    world->socket = -1;
    world->ready_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    pthread_mutex_init(&world->lock, NULL);
    return world;
}

void fake_watch(fake *world, pgp_pool *pool)
{
    int i = 0;

    while (world->watched[i])
        i++;
    REQUIRE(i < FAKE_POOLS, "too many pools to watch");
    world->watched[i] = pool;
}

pgp_connection *fake_link(fake *world, int number)
{
    pgp_connection *link;

    pthread_mutex_lock(&world->lock);
    for (link = world->last; link && link->number != number;)
        link = link->before;
    pthread_mutex_unlock(&world->lock);
    REQUIRE(link, "there is no link %d", number);
    return link;
}

pgp_connection *fake_link_of(const pgp_slot *conn)
{
    return pgp_slot_handle(conn);
}

void fake_process_ends(pgp_connection *link)
{
    link->ended = 1;
}

int fake_open(fake *world)
{
    return atomic_load(&world->opened) - atomic_load(&world->closed);
}

static int at_work(const pgp_connection *link)
{
    return !link->closed && link->awaited && link->plan.end != FAKE_HANGS;
}

apr_time_t fake_due(fake *world)
{
    apr_time_t due = APR_INT64_MAX;
    const pgp_connection *link;

    for (link = world->last; link; link = link->before)
        if (at_work(link) && link->begun + link->plan.takes < due)
            due = link->begun + link->plan.takes;
    return due;
}
