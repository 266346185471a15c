/* A fake env and a fake driver for the tests of the core (fake.h). */
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

/* --- checking the core ------------------------------------------------------ */

static void watch_pool(pgp_pool *pool)
{
    pgp_stats counts;
    int i, sum = 0;

    pgp_pool_read_stats(pool, &counts);
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

static void enter(pgp_connection *connection, const char *call)
{
    REQUIRE(atomic_fetch_add(&connection->inside, 1) == 0, "%s(%d): another thread is inside",
            call, connection->number);
    REQUIRE(!connection->freed, "%s(%d): it is freed", call, connection->number);
    watch(connection->world);
}

static void enter_open(pgp_connection *connection, const char *call)
{
    enter(connection, call);
    REQUIRE(!connection->closed, "%s(%d): it is closed", call, connection->number);
}

static void leave(pgp_connection *connection)
{
    atomic_fetch_sub(&connection->inside, 1);
}

static void enter_ready(pgp_connection *connection, const char *call)
{
    enter_open(connection, call);
    REQUIRE(connection->phase == FAKE_READY, "%s(%d): it is not ready", call,
            connection->number);
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

/* A thread that sleeps in env->wait(); on its stack. */
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

/* No signal tells that the test lets time pass, so a sleeper reads the clock every 100 us. */
static bool sleep_in_test_time(fake *world, sem_t *sem, apr_time_t until)
{
    for (;;) {
        if (!world->drowsy && env_now(world) >= until)
            return false;
        if (!world->drowsy && sem_trywait(sem) == 0)
            return true;
        usleep(100);
    }
}

static bool env_wait(void *baton, sem_t *sem, apr_time_t until)
{
    fake *world = baton;
    struct fake_sleeper sleeper = {.until = until};
    bool woken;

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

static bool env_log_wanted(void *baton, pgp_log_level level)
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

static void begin(pgp_connection *connection, fake_phase phase, const fake_plan *plan)
{
    connection->phase = phase;
    connection->plan = *plan;
    connection->begun = pgp_now(&connection->world->env);
    connection->awaited = 0;
}

static pgp_connection *link_made(fake *world)
{
    pgp_connection *connection;

    pthread_mutex_lock(&world->lock);
    connection = apr_pcalloc(world->p, sizeof(*connection));
    connection->world = world;
    connection->idle = PGP_IDLE_QUIET;
    connection->returned = PGP_RETURN_CLEAN;
    connection->socket = world->socket;
    connection->number = atomic_fetch_add(&world->opened, 1) + 1;
    connection->before = world->last;
    world->last = connection;
    pthread_mutex_unlock(&world->lock);
    return connection;
}

static pgp_connection *drv_connect(const pgp_context *context, unsigned first_host, bool survey,
                                   void *owner, pgp_error *error)
{
    fake *world = context->env->baton;
    pgp_connection *connection;

    watch(world);
    if (world->on_connect)
        world->on_connect(world);
    if (world->plan.at_once) {
        atomic_fetch_add(&world->failed, 1);
        error_set(error, &world->plan, "start");
        return NULL;
    }
    connection = link_made(world);
    connection->first_host = first_host;
    begin(connection, FAKE_CONNECTING, &world->plan);
    return connection;
}

static int time_taken(const pgp_connection *connection)
{
    return pgp_now(&connection->world->env) >= connection->begun + connection->plan.takes;
}

static pgp_step fails(pgp_connection *connection, pgp_error *error)
{
    error_set(error, &connection->plan,
              connection->phase == FAKE_CONNECTING ? "connect" : "clean-up");
    if (connection->phase == FAKE_CONNECTING)
        atomic_fetch_add(&connection->world->failed, 1);
    connection->phase = FAKE_BAD;
    return PGP_STEP_FAILED;
}

static pgp_step done(pgp_connection *connection)
{
    connection->returned = connection->cleaned;
    connection->phase = FAKE_READY;
    return PGP_STEP_DONE;
}

static pgp_step advance(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    *await = (struct pollfd){.fd = -1};
    if (connection->plan.steps > 0) {
        connection->plan.steps--;
        *await = (struct pollfd){.fd = connection->world->ready_fd, .events = POLLOUT};
        return PGP_STEP_AGAIN;
    }
    if (connection->plan.end == FAKE_HANGS || !time_taken(connection))
        return PGP_STEP_AGAIN;
    return connection->plan.end == FAKE_FAILS ? fails(connection, error) : done(connection);
}

static pgp_step step_closing(const pgp_connection *connection, struct pollfd *await)
{
    *await = (struct pollfd){.fd = -1};
    return connection->world->lingers && !connection->ended ? PGP_STEP_AGAIN : PGP_STEP_DONE;
}

static pgp_step drv_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    pgp_step step;

    enter(connection, "step");
    REQUIRE(connection->phase == FAKE_CONNECTING || connection->phase == FAKE_CLEANING ||
                connection->phase == FAKE_CLOSING,
            "step(%d): nothing is under way", connection->number);
    step = connection->phase == FAKE_CLOSING ? step_closing(connection, await)
                                             : advance(connection, await, error);
    connection->awaited = step == PGP_STEP_AGAIN;
    leave(connection);
    return step;
}

/* --- the rest of the driver ------------------------------------------------- */

static bool drv_is_alive(pgp_connection *connection)
{
    int alive;

    enter_open(connection, "is_alive");
    alive = !connection->gone;
    leave(connection);
    return alive;
}

static pgp_idle_state drv_check_idle(pgp_connection *connection, pgp_error *error)
{
    pgp_idle_state idle;

    enter_ready(connection, "check_idle");
    while (atomic_load(&connection->stops))
        apr_sleep(1000);
    idle = connection->idle;
    if (idle == PGP_IDLE_DEAD)
        *error = (pgp_error){.message = "the fake was closed while idle"};
    leave(connection);
    return idle;
}

static bool drv_read_idle(pgp_connection *connection, pgp_error *error)
{
    enter_ready(connection, "read_idle");
    connection->readings++;
    if (connection->world->on_read_idle)
        connection->world->on_read_idle(connection->world);
    if (connection->noisy)
        *error = (pgp_error){.message = "the fake is never quiet"};
    leave(connection);
    return !connection->noisy;
}

static void drv_shutdown(pgp_connection *connection, const char *why)
{
    enter_open(connection, "shutdown");
    connection->last_words.message[0] = '\0';
    leave(connection);
}

static void drv_last_words(pgp_connection *connection, pgp_error *error)
{
    enter_open(connection, "last_words");
    *error = connection->last_words;
    leave(connection);
}

static int answers(pgp_connection *connection, pgp_error *error)
{
    if (!connection->mute)
        return 1;
    connection->phase = FAKE_BAD;
    apr_cpystrn(error->message, "the fake does not answer", sizeof error->message);
    return 0;
}

/* Collect the answer to the reset.  Returns false if the server rejects the reset. */
static bool is_reset(pgp_connection *connection, pgp_error *error)
{
    if (connection->idle != PGP_IDLE_RESET_PENDING)
        return true;
    connection->idle = PGP_IDLE_QUIET;
    if (!connection->unclean)
        return true;
    connection->phase = FAKE_BAD;
    *error = (pgp_error){.sqlstate = "42501", .message = "the fake may not be reset"};
    return false;
}

static bool drv_prepare(pgp_connection *connection, bool ping, apr_time_t until,
                        pgp_error *error)
{
    int good;

    enter_ready(connection, "prepare");
    connection->prepared++;
    connection->pings += ping != 0;
    connection->deadline = until;
    good = answers(connection, error) && is_reset(connection, error);
    leave(connection);
    return good;
}

static bool drv_has_vars(const pgp_connection *connection, const pgp_vars *vars)
{
    return vars->n == 0;
}

static void drv_doubt_vars(pgp_connection *connection)
{
    enter_ready(connection, "doubt_vars");
    leave(connection);
}

static pgp_set_outcome drv_set_vars(pgp_connection *connection, const pgp_vars *vars,
                                    apr_time_t until, pgp_error *error)
{
    pgp_set_outcome outcome = PGP_SET_DONE;

    enter_ready(connection, "set_vars");
    connection->vars += vars->n;
    connection->deadline = until;
    if (!answers(connection, error))
        outcome = PGP_SET_FAILED;
    else if (connection->refuses) {
        *error = (pgp_error){.sqlstate = "42704", .message = "the fake will not set that"};
        outcome = PGP_SET_DENIED;
    }
    leave(connection);
    return outcome;
}

static pgp_return drv_finish_lease(pgp_connection *connection)
{
    pgp_return returned;

    enter_ready(connection, "finish_lease");
    returned = connection->returned;
    if (returned != PGP_RETURN_CLEAN)
        connection->phase = returned == PGP_RETURN_DIRTY ? FAKE_DIRTY : FAKE_BAD;
    leave(connection);
    return returned;
}

static bool drv_cleanup(pgp_connection *connection)
{
    enter_open(connection, "cleanup");
    REQUIRE(connection->phase == FAKE_DIRTY, "cleanup(%d): it is not dirty",
            connection->number);
    connection->cleanings++;
    begin(connection, FAKE_CLEANING, &connection->cleaning);
    leave(connection);
    return connection->busy;
}

static void end(pgp_connection *connection)
{
    fake *world = connection->world;

    if (world->on_close)
        world->on_close(world, connection);
    connection->closed = 1;
    connection->phase = FAKE_CLOSING;
    atomic_fetch_add(&world->closed, 1);
}

static void drv_close(pgp_connection *connection)
{
    enter_open(connection, "close");
    end(connection);
    leave(connection);
}

static void drv_destroy(pgp_connection *connection)
{
    enter(connection, "destroy");
    if (!connection->closed)
        end(connection);
    connection->freed = 1;
    leave(connection);
}

static int drv_capacity(const pgp_connection *connection)
{
    return connection->world->capacity;
}

static const char *drv_tls(const pgp_connection *connection)
{
    return connection->world->tls;
}

static unsigned drv_backend(const pgp_connection *connection)
{
    enter_open((pgp_connection *)connection, "backend");
    leave((pgp_connection *)connection);
    return 1000 + connection->number;
}

static int drv_socket(const pgp_connection *connection)
{
    return connection->socket;
}

static void *drv_handle(const pgp_connection *connection)
{
    enter_ready((pgp_connection *)connection, "handle");
    leave((pgp_connection *)connection);
    return (pgp_connection *)connection;
}

static const pgp_driver driver = {
    .connect = drv_connect,
    .step = drv_step,
    .is_alive = drv_is_alive,
    .check_idle = drv_check_idle,
    .read_idle = drv_read_idle,
    .shutdown = drv_shutdown,
    .last_words = drv_last_words,
    .prepare = drv_prepare,
    .has_vars = drv_has_vars,
    .doubt_vars = drv_doubt_vars,
    .set_vars = drv_set_vars,
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

pgp_connection *fake_connection(fake *world, int number)
{
    pgp_connection *connection;

    pthread_mutex_lock(&world->lock);
    for (connection = world->last; connection && connection->number != number;)
        connection = connection->before;
    pthread_mutex_unlock(&world->lock);
    REQUIRE(connection, "there is no connection %d", number);
    return connection;
}

pgp_connection *fake_link_of(const pgp_slot *conn)
{
    return pgp_slot_handle(conn);
}

void fake_process_ends(pgp_connection *connection)
{
    connection->ended = 1;
}

int fake_open(fake *world)
{
    return atomic_load(&world->opened) - atomic_load(&world->closed);
}

static int at_work(const pgp_connection *connection)
{
    return !connection->closed && connection->awaited && connection->plan.end != FAKE_HANGS;
}

apr_time_t fake_due(fake *world)
{
    apr_time_t due = APR_INT64_MAX;
    const pgp_connection *connection;

    for (connection = world->last; connection; connection = connection->before)
        if (at_work(connection) && connection->begun + connection->plan.takes < due)
            due = connection->begun + connection->plan.takes;
    return due;
}
