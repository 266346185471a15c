/*
 * The status page, and the section in mod_status (mod_pgpool_status.h).
 *
 * Texts from outside go through escaped(); everything else printed here is a number, a
 * word of the tables, or a pool's name, which the configuration keeps to letters, digits,
 * "_" and "-".
 */
#include "mod_pgpool_status.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <util_time.h>

#include "mod_pgpool.h"

static const char *escaped(request_rec *r, const char *text)
{
    return ap_escape_html(r->pool, text);
}

static const pgpool_view *view_of(const pgpool_snapshot *all, int n)
{
    return &APR_ARRAY_IDX(all->pools, n, pgpool_view);
}

static int is_plain_counter(const pgpool_figure *figure)
{
    return figure->kind == PGPOOL_COUNTER && !figure->dimension;
}

/* The operator's word for a state. */
static const char *state_label(int state)
{
    return state == PGP_LENT ? "in use" : pgp_state_name(state);
}

/* --- times ------------------------------------------------------------------ */

static const char *duration(apr_pool_t *p, apr_interval_time_t time)
{
    const int s = time / APR_USEC_PER_SEC;

    if (time < 1000)
        return apr_psprintf(p, "%d&nbsp;µs", (int)time);
    if (time < 100 * 1000)
        return apr_psprintf(p, "%.1f&nbsp;ms", time / 1e3);
    if (time < APR_USEC_PER_SEC)
        return apr_psprintf(p, "%d&nbsp;ms", (int)(time / 1000));
    if (s < 100)
        return apr_psprintf(p, "%.1f&nbsp;s", time / 1e6);
    if (s < 100 * 60)
        return apr_psprintf(p, "%d&nbsp;min&nbsp;%d&nbsp;s", s / 60, s % 60);
    if (s < 48 * 3600)
        return apr_psprintf(p, "%d&nbsp;h&nbsp;%d&nbsp;min", s / 3600, s / 60 % 60);
    return apr_psprintf(p, "%d&nbsp;d&nbsp;%d&nbsp;h", s / 86400, s / 3600 % 24);
}

/* A quantile is known as the bound of its bucket only. */
static const char *bound(apr_pool_t *p, apr_interval_time_t time)
{
    if (!time)
        return "–"; /* there are none */
    if (time == pgp_stats_bound(0))
        return "0";
    if (time == APR_INT64_MAX)
        return apr_psprintf(p, "&gt;&nbsp;%s", duration(p, pgp_stats_bound(PGP_BUCKETS - 2)));
    return apr_psprintf(p, "&lt;&nbsp;%s", duration(p, time));
}

/* --- samples ---------------------------------------------------------------- */

static int counters_per_pool(void)
{
    const pgpool_figure *figure;
    int n = 0;

    for (figure = pgpool_figures; figure->key; figure++)
        n += is_plain_counter(figure);
    return n;
}

static apr_int64_t *counters_of(apr_pool_t *p, const pgpool_snapshot *all)
{
    apr_int64_t *counters = apr_palloc(p, (all->pools->nelts * counters_per_pool() + 1) *
                                              sizeof(*counters));
    const pgpool_figure *figure;
    int i, n = 0;

    for (i = 0; i < all->pools->nelts; i++)
        for (figure = pgpool_figures; figure->key; figure++)
            if (is_plain_counter(figure))
                counters[n++] = figure->get(view_of(all, i), figure->first);
    return counters;
}

/* A sample is carried in a request line, which httpd takes up to LimitRequestLine (8190). */
#define SAMPLE_LENGTH_MOST 4000

/* "_1,2,0,3", without the zeros at its end. */
static const char *pool_sample_text(apr_pool_t *p, const apr_int64_t *counters)
{
    const char *text = "_";
    int n = counters_per_pool(), i;

    while (n > 0 && !counters[n - 1])
        n--;
    for (i = 0; i < n; i++)
        text = apr_pstrcat(p, text, i ? "," : "", apr_off_t_toa(p, counters[i]), NULL);
    return text;
}

const char *pgpool_sample_text(apr_pool_t *p, const pgpool_snapshot *all)
{
    const apr_int64_t *counters = counters_of(p, all);
    const int pools = all->pools->nelts;
    apr_array_header_t *parts = apr_array_make(p, pools + 1, sizeof(const char *));
    const char *part = apr_psprintf(p, "%" APR_TIME_T_FMT ",%d", all->now, pools);
    apr_size_t length = strlen(part);
    int i;

    APR_ARRAY_PUSH(parts, const char *) = part;
    for (i = 0; i < pools; i++) {
        part = pool_sample_text(p, counters + i * counters_per_pool());
        length += strlen(part);
        if (length > SAMPLE_LENGTH_MOST)
            break;
        APR_ARRAY_PUSH(parts, const char *) = part;
    }
    return apr_array_pstrcat(p, parts, 0);
}

/* Read one pool's part, from behind its "_".  Returns where it ends. */
static const char *pool_sample_read(const char *text, apr_int64_t *counters)
{
    const int n = counters_per_pool();
    char *end = (char *)text;
    int i;

    for (i = 0; i < n && apr_isdigit(*end); i++) {
        counters[i] = apr_strtoi64(end, &end, 10);
        if (*end == ',')
            end++;
    }
    return end;
}

const pgpool_sample *pgpool_sample_read(apr_pool_t *p, const pgpool_snapshot *all,
                                        const char *text)
{
    const apr_int64_t *now = counters_of(p, all);
    const int n = counters_per_pool(), pools = all->pools->nelts;
    apr_int64_t *then = apr_pcalloc(p, (pools * n + 1) * sizeof(*then));
    pgpool_sample *sample = apr_palloc(p, sizeof(*sample));
    const char *at;
    char *end;
    int i;

    *sample = (pgpool_sample){.at = apr_strtoi64(text, &end, 10), .counters = then};
    if (sample->at < all->start || sample->at >= all->now || *end != ',' ||
        apr_strtoi64(end + 1, &end, 10) != pools)
        return NULL;
    for (at = end; sample->pools < pools && *at == '_'; sample->pools++)
        at = pool_sample_read(at + 1, then + sample->pools * n);
    if (*at)
        return NULL;
    for (i = 0; i < sample->pools * n; i++)
        if (then[i] > now[i])
            return NULL;
    return sample;
}

/* --- the page's head -------------------------------------------------------- */

static const char style[] =
    ":root{color-scheme:light dark;--fg:#1b1f24;--dim:#59636e;--bg:#f6f7f9;--card:#fff;"
    "--line:#d5dae0;--track:#e6e9ed;--lent:#2563c9;--cleaning:#7d5bb8;--idle:#7fae8c;"
    "--connecting:#d29a1c;--closing:#9aa3ad;--waiting:#c4342b;--ok:#1a7f37;--busy:#9a6700;"
    "--exhausted:#b42318;--down:#82071e}"
    "@media(prefers-color-scheme:dark){:root{--fg:#e6e9ed;--dim:#9aa5b1;--bg:#14171b;"
    "--card:#1d2126;--line:#343b43;--track:#30363d;--lent:#5b93f0;--cleaning:#a98be0;"
    "--idle:#5b8f6b;--connecting:#d9a93c;--closing:#6e7781;--waiting:#f0635a;--ok:#2f8f4a;"
    "--busy:#a87514;--exhausted:#cf3a2f;--down:#b01030}}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--bg);color:var(--fg);"
    "font:15px/1.45 system-ui,sans-serif}"
    "h1{font-size:1.25rem;margin:0}h2{font-size:1.1rem;margin:0}"
    "h3{font-size:.9rem;margin:1.2rem 0 .3rem}"
    "header{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;align-items:baseline}"
    "header p,nav,.note{color:var(--dim);margin:0;font-size:.85rem}"
    "nav{display:flex;flex-wrap:wrap;gap:.2rem .8rem;margin:.3rem 0 "
    "0}.formats{margin-left:auto}"
    "a{color:var(--lent)}nav b{color:var(--fg)}"
    "section{background:var(--card);border:1px solid var(--line);border-radius:8px;"
    "padding:1rem;margin:1rem 0}"
    ".title{display:flex;flex-wrap:wrap;gap:.3rem .8rem;align-items:center}"
    ".word{color:#fff;border-radius:1em;padding:.05em .7em;font-weight:600;font-size:.95rem}"
    ".title p{margin:0}"
    ".ok{background:var(--ok)}.busy,.unknown{background:var(--busy)}"
    ".exhausted{background:var(--exhausted)}.down{background:var(--down)}"
    "dl{display:flex;flex-wrap:wrap;gap:.4rem 1.6rem;margin:.9rem 0 .5rem}"
    "dl div{display:flex;flex-direction:column-reverse}"
    ".none dd{color:var(--dim)}dt{color:var(--dim);font-size:.85rem}"
    "dt i{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.35em}"
    "dd{margin:0;font-size:1.6rem;line-height:1.1;font-variant-numeric:tabular-nums}"
    "svg{display:block;width:100%;height:26px;border-radius:4px}"
    "svg.thin{height:9px;margin:3px 0 .3rem}"
    ".track{fill:var(--track)}.lent{fill:var(--lent);background:var(--lent)}"
    ".cleaning{fill:var(--cleaning);background:var(--cleaning)}"
    ".idle{fill:var(--idle);background:var(--idle)}"
    ".connecting{fill:var(--connecting);background:var(--connecting)}"
    ".closing{fill:var(--closing);background:var(--closing)}"
    ".waiting{fill:var(--waiting);background:var(--waiting)}"
    "line{stroke:var(--fg);stroke-width:2;stroke-dasharray:3 2}"
    ".tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));"
    "gap:0 2rem}.tables th,.tables td{padding-right:.25rem}"
    ".wide,.tables>*{overflow-x:auto}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{text-align:right;padding:.2rem .5rem;border-bottom:1px solid var(--line);"
    "vertical-align:top}"
    "th{font-weight:500;color:var(--dim);font-size:.85rem}"
    "th:first-child,td:first-child,.left{text-align:left;padding-left:0}"
    "tbody th{color:var(--fg);font-size:1em;font-weight:400}"
    ".families{margin-top:.5rem}.text{overflow-wrap:anywhere}td,thead "
    "th{white-space:nowrap}.text{white-space:normal}"
    "small{color:var(--dim);padding-left:.4em}@media(max-width:72rem){small{display:none}}"
    ".error{border-left:4px solid var(--waiting);padding-left:.7rem;margin:.8rem 0;"
    "overflow-wrap:anywhere}";

static void print_head(request_rec *r, const pgpool_snapshot *all)
{
    ap_rprintf(r,
               "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
               "<title>%s – PostgreSQL pools</title>\n<style>%s</style>\n</head>\n",
               pgpool_health_word(pgpool_snapshot_health(all)), style);
}

static void print_choice(request_rec *r, const char *sample, int chosen, int seconds)
{
    if (seconds == chosen)
        ap_rprintf(r, "<b>%d s</b>\n", seconds);
    else
        ap_rprintf(r, "<a href=\"?refresh=%d&amp;since=%s\">%d s</a>\n", seconds, sample,
                   seconds);
}

static void print_navigation(request_rec *r, const pgpool_snapshot *all, int refresh)
{
    const char *sample = pgpool_sample_text(r->pool, all);

    ap_rputs("<nav>\n<span>Refresh every</span>\n", r);
    print_choice(r, sample, refresh, 2);
    print_choice(r, sample, refresh, 10);
    print_choice(r, sample, refresh, 60);
    if (refresh && refresh != 2 && refresh != 10 && refresh != 60)
        print_choice(r, sample, refresh, refresh);
    ap_rprintf(r,
               refresh ? "<a href=\"?since=%s\">stop</a>\n"
                       : "<a href=\"?since=%s\">once more</a>\n",
               sample);
    ap_rputs("<span class=\"formats\">the same as</span>\n<a href=\"?json\">JSON</a>\n<a "
             "href=\"?openmetrics\">OpenMetrics</a>\n"
             "<a href=\"?auto\">plain text</a>\n</nav>\n",
             r);
}

static void print_header(request_rec *r, const pgpool_snapshot *all, int refresh)
{
    const char *time = ap_ht_time(r->pool, r->request_time, "%Y-%m-%d %H:%M:%S", 0);
    const int children = all->children->nelts;

    ap_rprintf(r,
               "<body>\n<header>\n<h1>PostgreSQL pools of %s</h1>\n"
               "<p>%s · %d child%s of httpd · counting for %s</p>\n</header>\n",
               escaped(r, ap_get_server_name(r)), time, children, children == 1 ? "" : "ren",
               duration(r->pool, all->now - all->start));
    print_navigation(r, all, refresh);
}

/* --- a pool: what is now ---------------------------------------------------- */

static void print_number(request_rec *r, const char *class, const char *label, int number)
{
    ap_rprintf(r, "<div%s><dt><i class=\"%s\"></i>%s</dt><dd>%d</dd></div>\n",
               number ? "" : " class=\"none\"", class, label, number);
}

/* In the order of the bar. */
static const pgp_state shown_states[] = {PGP_LENT, PGP_CLEANING, PGP_IDLE, PGP_CONNECTING,
                                         PGP_CLOSING};
#define SHOWN_STATES (sizeof shown_states / sizeof *shown_states)

/* The rarer ones show up when they are there. */
static int is_worth_a_number(const pgpool_view *view, pgp_state state)
{
    return view->stats.state[state] > 0 || state == PGP_LENT || state == PGP_IDLE ||
           state == PGP_CONNECTING;
}

static void print_numbers(request_rec *r, const pgpool_view *view)
{
    unsigned i;

    ap_rputs("<dl>\n", r);
    for (i = 0; i < SHOWN_STATES; i++)
        if (is_worth_a_number(view, shown_states[i]))
            print_number(r, pgp_state_name(shown_states[i]), state_label(shown_states[i]),
                         view->stats.state[shown_states[i]]);
    print_number(r, "waiting", "waiting", view->stats.waiting);
    ap_rputs("</dl>\n", r);
}

/* What the full width of a bar stands for: more than the limit there can be for a
 * moment, when it has just been lowered. */
static int scale_of(const pgpool_view *view)
{
    const int open = pgpool_view_open(view);
    const int most = open > view->limit ? open : view->limit;

    return most > 0 ? most : 1;
}

static double percent(int part, int whole)
{
    return part < whole ? 100.0 * part / whole : 100.0;
}

static void print_tick(request_rec *r, int at, int scale)
{
    if (at > 0 && at < scale)
        ap_rprintf(r, "<line x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"0\" y2=\"100%%\"/>\n",
                   percent(at, scale), percent(at, scale));
}

static void print_bars(request_rec *r, const pgpool_view *view)
{
    const int scale = scale_of(view);
    int at = 0;
    unsigned i;

    ap_rprintf(r,
               "<svg role=\"img\" aria-label=\"%d open, %d of them in use, of at most %d\">\n"
               "<rect class=\"track\" width=\"100%%\" height=\"100%%\"/>\n",
               pgpool_view_open(view), view->stats.state[PGP_LENT], view->limit);
    for (i = 0; i < SHOWN_STATES; i++) {
        const int n = view->stats.state[shown_states[i]];

        if (n > 0)
            ap_rprintf(r,
                       "<rect class=\"%s\" x=\"%.2f%%\" width=\"%.2f%%\" height=\"100%%\">"
                       "<title>%d %s</title></rect>\n",
                       pgp_state_name(shown_states[i]), percent(at, scale), percent(n, scale),
                       n, state_label(shown_states[i]));
        at += n;
    }
    print_tick(r, view->settings->min * view->children, scale);
    print_tick(r, view->limit, scale);
    ap_rprintf(r,
               "</svg>\n<svg class=\"thin\" role=\"img\" aria-label=\"%d waiting\">\n"
               "<rect class=\"track\" width=\"100%%\" height=\"100%%\"/>\n"
               "<rect class=\"waiting\" width=\"%.2f%%\" height=\"100%%\"/>\n</svg>\n",
               view->stats.waiting, percent(view->stats.waiting, scale));
}

static void print_limits(request_rec *r, const pgpool_view *view)
{
    const pgp_settings *settings = view->settings;
    const int n = view->children;

    ap_rprintf(r, "<p class=\"note\">%d open of at most %d: PgPoolMax %d × %d child%s = %d, ",
               pgpool_view_open(view), view->limit, settings->max, n, n == 1 ? "" : "ren",
               settings->max * n);
    if (settings->total_max)
        ap_rprintf(r, "PgPoolTotalMax %d", settings->total_max);
    else
        ap_rputs("no PgPoolTotalMax", r);
    ap_rprintf(r, " · dashed line: PgPoolMin %d × %d = %d</p>\n", settings->min, n,
               settings->min * n);
}

static void print_error(request_rec *r, const pgpool_view *view, apr_time_t now)
{
    const pgp_error *error = &view->stats.error;

    if (!view->stats.error_at)
        return;
    ap_rprintf(r, "<p class=\"%s\"><strong>Last error, %s ago%s:</strong> %s%s%s%s</p>\n",
               view->stats.down ? "error" : "note",
               duration(r->pool, now - view->stats.error_at),
               view->stats.down ? "" : " (connecting works again)", escaped(r, error->message),
               *error->sqlstate ? " (SQLSTATE " : "", escaped(r, error->sqlstate),
               *error->sqlstate ? ")" : "");
}

/* --- a pool: tables --------------------------------------------------------- */

static void print_counter(request_rec *r, const pgpool_figure *figure, apr_int64_t total,
                          double rate)
{
    ap_rprintf(
        r, "<tr><th>%s <small>%s</small></th><td>%" APR_INT64_T_FMT "</td><td>%.1f</td></tr>\n",
        figure->label, figure->help, total, rate);
}

static void print_counters(request_rec *r, const pgpool_snapshot *all, int n,
                           const pgpool_sample *before)
{
    const int is_sampled = before && n < before->pools;
    const apr_int64_t *then = is_sampled ? before->counters + n * counters_per_pool() : NULL;
    const apr_interval_time_t time = all->now - (is_sampled ? before->at : all->start);
    const pgpool_figure *figure;

    ap_rprintf(r,
               "<table>\n<thead><tr><th></th><th>total</th><th>per&nbsp;second<br>%s&nbsp;%s"
               "</th></tr></thead>\n<tbody>\n",
               is_sampled ? "in the last" : "mean of", duration(r->pool, time));
    for (figure = pgpool_figures; figure->key; figure++)
        if (is_plain_counter(figure)) {
            const apr_int64_t total = figure->get(view_of(all, n), figure->first);

            print_counter(r, figure, total,
                          (total - (then ? *then++ : 0)) / (time > 0 ? time / 1e6 : 1));
        }
    ap_rputs("</tbody>\n</table>\n", r);
}

static void print_timing(request_rec *r, const pgpool_view *view, const pgpool_timing *timing)
{
    const apr_interval_time_t longest = pgpool_timing_longest(view, timing);
    const pgpool_quantile *quantile;

    ap_rprintf(r, "<tr><th>%s</th>", timing->label);
    for (quantile = pgpool_quantiles; quantile->key; quantile++)
        ap_rprintf(r, "<td>%s</td>",
                   bound(r->pool, pgpool_timing_quantile(view, timing, quantile)));
    ap_rprintf(r, "<td>%s</td></tr>\n", longest ? duration(r->pool, longest) : "–");
}

static void print_timings(request_rec *r, const pgpool_view *view)
{
    const pgpool_quantile *quantile;
    const pgpool_timing *timing;

    ap_rputs("<table>\n<thead><tr><th></th>", r);
    for (quantile = pgpool_quantiles; quantile->key; quantile++)
        ap_rprintf(r, "<th>%s</th>", quantile->key);
    ap_rputs("<th>longest</th></tr></thead>\n<tbody>\n", r);
    for (timing = pgpool_timings; timing->key; timing++)
        print_timing(r, view, timing);
    ap_rputs("</tbody>\n</table>\n", r);
}

/* The bars show the connections by state. */
static int is_state(const pgpool_figure *figure)
{
    return figure->member == pgpool_state_member;
}

/* The members of a family that are not zero, in one line. */
static void print_family(request_rec *r, const pgpool_figure *figure, const pgpool_view *view)
{
    const char *comma = "";
    int i;

    ap_rprintf(r, "<p class=\"note families\">%s by %s: ", figure->label, figure->dimension);
    for (i = figure->first; i < figure->end; i++)
        if (figure->get(view, i) > 0) {
            ap_rprintf(r, "%s%s&nbsp;%" APR_INT64_T_FMT, comma, figure->member(i),
                       figure->get(view, i));
            comma = ", ";
        }
    ap_rputs(*comma ? "</p>\n" : "none</p>\n", r);
}

static void print_holder(request_rec *r, const pgp_holder *holder, apr_time_t now)
{
    ap_rprintf(r,
               "<tr><td>%s</td><td class=\"left text\">%s</td><td class=\"left\">%s</td>"
               "<td>%u</td></tr>\n",
               duration(r->pool, now - holder->since),
               *holder->what ? escaped(r, holder->what) : "<em>not a request</em>",
               *holder->client ? escaped(r, holder->client) : "–", holder->backend);
}

static void print_holders(request_rec *r, const pgp_stats *stats, apr_time_t now)
{
    int i;

    if (!stats->holders[0].since)
        return;
    ap_rputs("<h3>Longest in use</h3>\n<div class=\"wide\"><table>\n<thead><tr><th>for</th>"
             "<th class=\"left\">request (handler)</th><th class=\"left\">client</th>"
             "<th>backend</th></tr></thead>\n<tbody>\n",
             r);
    for (i = 0; i < PGP_HOLDERS && stats->holders[i].since; i++)
        print_holder(r, &stats->holders[i], now);
    ap_rputs("</tbody>\n</table></div>\n", r);
}

static void print_pool(request_rec *r, const pgpool_snapshot *all, int n,
                       const pgpool_sample *before)
{
    const pgpool_view *view = view_of(all, n);
    const char *word = pgpool_health_word(view->health);
    const pgpool_figure *figure;

    ap_rprintf(r,
               "<section>\n<div class=\"title\"><h2>%s</h2> <span class=\"word %s\">%s</span> "
               "<p>%s</p></div>\n",
               view->label, word, word, view->why);
    print_numbers(r, view);
    print_bars(r, view);
    print_limits(r, view);
    print_error(r, view, all->now);
    ap_rputs("<div class=\"tables\">\n<div>\n<h3>Counts</h3>\n", r);
    print_counters(r, all, n, before);
    ap_rputs("</div>\n<div>\n<h3>Times</h3>\n", r);
    print_timings(r, view);
    for (figure = pgpool_figures; figure->key; figure++)
        if (figure->dimension && !is_state(figure))
            print_family(r, figure, view);
    ap_rputs("</div>\n</div>\n", r);
    print_holders(r, &view->stats, all->now);
    ap_rputs("</section>\n", r);
}

/* --- by child --------------------------------------------------------------- */

static int is_of_a_part(const pgpool_figure *figure)
{
    return figure->kind != PGPOOL_LIMIT && (figure->kind == PGPOOL_GAUGE || !figure->dimension);
}

static void print_part_labels(request_rec *r)
{
    const pgpool_figure *figure;
    int i;

    for (figure = pgpool_figures; figure->key; figure++)
        if (is_of_a_part(figure) && !figure->dimension)
            ap_rprintf(r, "<th title=\"%s\">%s</th>", figure->help, figure->label);
        else if (is_of_a_part(figure))
            for (i = figure->first; i < figure->end; i++)
                ap_rprintf(r, "<th>%s</th>",
                           is_state(figure) ? state_label(i) : figure->member(i));
}

static void print_part_figures(request_rec *r, const pgpool_view *view)
{
    const pgpool_figure *figure;
    int i;

    for (figure = pgpool_figures; figure->key; figure++)
        for (i = figure->first; is_of_a_part(figure); i++) {
            ap_rprintf(r, "<td>%" APR_INT64_T_FMT "</td>", figure->get(view, i));
            if (!figure->dimension || i + 1 == figure->end)
                break;
        }
}

static void print_part(request_rec *r, const pgpool_part *part, int pools)
{
    int i;

    for (i = 0; i < pools; i++) {
        if (part->pid)
            ap_rprintf(r, "<tr><th>%d</th>", part->pid);
        else
            ap_rputs("<tr><th>ended</th>", r);
        ap_rprintf(r, "<td class=\"left\">%s</td>", part->pools[i].label);
        print_part_figures(r, &part->pools[i]);
        ap_rputs("</tr>\n", r);
    }
}

static void print_parts(request_rec *r, const pgpool_snapshot *all)
{
    const int pools = all->pools->nelts;
    int i;

    ap_rputs("<section>\n<h2>By child</h2>\n<div class=\"wide\"><table>\n<thead><tr>"
             "<th>pid</th><th class=\"left\">pool</th>",
             r);
    print_part_labels(r);
    ap_rputs("</tr></thead>\n<tbody>\n", r);
    for (i = 0; i < all->children->nelts; i++)
        print_part(r, &APR_ARRAY_IDX(all->children, i, pgpool_part), pools);
    print_part(r, &all->ended, pools);
    ap_rputs("</tbody>\n</table></div>\n</section>\n", r);
}

/* --- whole ------------------------------------------------------------------ */

void pgpool_print_html(request_rec *r, const pgpool_snapshot *all, const pgpool_sample *before,
                       int refresh)
{
    int i;

    print_head(r, all);
    print_header(r, all, refresh);
    ap_rputs("<main>\n", r);
    if (all->pools->nelts == 0)
        ap_rputs("<section><p>No pool is configured.</p></section>\n", r);
    for (i = 0; i < all->pools->nelts; i++)
        print_pool(r, all, i, before);
    print_parts(r, all);
    ap_rputs("</main>\n<footer><p class=\"note\">Each child tells its figures when something "
             "happens, and once a second at least. A time is known as the bound below which "
             "it lies; the longest is exact.  mod_pgpool " PGPOOL_VERSION ".</p></footer>\n"
             "</body>\n</html>\n",
             r);
}

/* In the manner of mod_status, which has neither style nor classes. */
void pgpool_print_section(request_rec *r, const pgpool_snapshot *all)
{
    int i;

    ap_rputs("<hr>\n<h2>PostgreSQL pools</h2>\n<table border=\"0\" cellpadding=\"3\">\n<tr>"
             "<th>pool</th><th>health</th><th>in use</th><th>idle</th><th>connecting</th>"
             "<th>waiting</th><th>at most</th><th>acquires</th><th>exhausted</th>"
             "<th>unavailable</th><th>why</th></tr>\n",
             r);
    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_view *view = view_of(all, i);
        const pgp_stats *stats = &view->stats;

        ap_rprintf(r,
                   "<tr><td>%s</td><td>%s</td><td>%d</td><td>%d</td><td>%d</td><td>%d</td>"
                   "<td>%d</td><td>%" APR_UINT64_T_FMT "</td><td>%" APR_UINT64_T_FMT
                   "</td><td>%" APR_UINT64_T_FMT "</td><td>%s</td></tr>\n",
                   view->label, pgpool_health_word(view->health), stats->state[PGP_LENT],
                   stats->state[PGP_IDLE], stats->state[PGP_CONNECTING], stats->waiting,
                   view->limit, stats->n[PGP_N_ACQUIRES], stats->n[PGP_N_EXHAUSTED],
                   stats->n[PGP_N_UNAVAILABLE], view->why);
    }
    ap_rputs("</table>\n", r);
}
