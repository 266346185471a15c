/*
 * Prints the status page, and the section in mod_status (mod_pgpool_status.h).
 *
 * html_escape() takes every text from outside.  Everything else printed here is a number, a
 * text of our own, or a label, whose characters HTML need not escape (pgpool_definition).
 */
#include "mod_pgpool_status.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <util_time.h>

#include "mod_pgpool.h"
#include "mod_pgpool_health.h"
#include "mod_pgpool_metrics.h"

static const char *html_escape(request_rec *r, const char *text)
{
    return ap_escape_html(r->pool, text);
}

static const pgpool_pool_view *view_of(const pgpool_snapshot *all, int n)
{
    return &APR_ARRAY_IDX(all->pools, n, pgpool_pool_view);
}

/* The operator's word for a state. */
static const char *state_label(int state)
{
    return state == PGP_IN_USE ? "in use" : pgp_state_name(state);
}

/* --- times ------------------------------------------------------------------ */

static const char *duration_text(apr_pool_t *p, apr_interval_time_t time)
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

/* The text of a quantile, of which only the bound of its bucket is known. */
static const char *bound_text(apr_pool_t *p, apr_interval_time_t time)
{
    if (!time)
        return "–"; /* there are none */
    if (time == pgp_stats_bound(0))
        return "0";
    if (time == APR_INT64_MAX)
        return apr_psprintf(p, "&gt;&nbsp;%s",
                            duration_text(p, pgp_stats_bound(PGP_BUCKETS - 2)));
    return apr_psprintf(p, "&lt;&nbsp;%s", duration_text(p, time));
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
    ".ok{background:var(--ok)}.busy,.unknown,.suspended{background:var(--busy)}"
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
               pgpool_health_word(pgpool_health_worst(all)), style);
}

static void print_choice(request_rec *r, const char *baseline, int chosen, int seconds)
{
    if (seconds == chosen)
        ap_rprintf(r, "<b>%d s</b>\n", seconds);
    else
        ap_rprintf(r, "<a href=\"?refresh=%d&amp;since=%s\">%d s</a>\n", seconds, baseline,
                   seconds);
}

static void print_navigation(request_rec *r, const pgpool_snapshot *all, int refresh)
{
    const char *baseline = pgpool_baseline_text(r->pool, all);

    ap_rputs("<nav>\n<span>Refresh every</span>\n", r);
    print_choice(r, baseline, refresh, 2);
    print_choice(r, baseline, refresh, 10);
    print_choice(r, baseline, refresh, 60);
    if (refresh && refresh != 2 && refresh != 10 && refresh != 60)
        print_choice(r, baseline, refresh, refresh);
    ap_rprintf(r,
               refresh ? "<a href=\"?since=%s\">stop</a>\n"
                       : "<a href=\"?since=%s\">once more</a>\n",
               baseline);
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
               html_escape(r, ap_get_server_name(r)), time, children,
               children == 1 ? "" : "ren", duration_text(r->pool, all->now - all->start));
    print_navigation(r, all, refresh);
}

/* --- a pool: what is now ---------------------------------------------------- */

static void print_number(request_rec *r, const char *class, const char *label, int number)
{
    ap_rprintf(r, "<div%s><dt><i class=\"%s\"></i>%s</dt><dd>%d</dd></div>\n",
               number ? "" : " class=\"none\"", class, label, number);
}

/* In the order of the bar. */
static const pgp_state shown_states[] = {PGP_IN_USE, PGP_CLEANING, PGP_IDLE, PGP_CONNECTING,
                                         PGP_CLOSING};
#define SHOWN_STATES (sizeof shown_states / sizeof *shown_states)

/* The rarer states are shown only when they occur. */
static bool is_worth_a_number(const pgpool_pool_view *view, pgp_state state)
{
    return view->stats.state[state] > 0 || state == PGP_IN_USE || state == PGP_IDLE ||
           state == PGP_CONNECTING;
}

static void print_numbers(request_rec *r, const pgpool_pool_view *view)
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

/* The number of connections that the full width of a bar stands for.  For a moment after the
 * limit was lowered there may be more connections than the limit. */
static int scale_of(const pgpool_pool_view *view)
{
    const int open = pgpool_metric_connections(view);
    const int most = open > view->limit ? open : view->limit;

    return most > 0 ? most : 1;
}

static double percent_of(int part, int whole)
{
    return part < whole ? 100.0 * part / whole : 100.0;
}

static void print_tick(request_rec *r, int at, int scale)
{
    if (at > 0 && at < scale)
        ap_rprintf(r, "<line x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"0\" y2=\"100%%\"/>\n",
                   percent_of(at, scale), percent_of(at, scale));
}

static void print_bars(request_rec *r, const pgpool_pool_view *view)
{
    const int scale = scale_of(view);
    int at = 0;
    unsigned i;

    ap_rprintf(r,
               "<svg role=\"img\" aria-label=\"%d connections of at most %d, %d in use\">\n"
               "<rect class=\"track\" width=\"100%%\" height=\"100%%\"/>\n",
               pgpool_metric_connections(view), view->limit, view->stats.state[PGP_IN_USE]);
    for (i = 0; i < SHOWN_STATES; i++) {
        const int n = view->stats.state[shown_states[i]];

        if (n > 0)
            ap_rprintf(r,
                       "<rect class=\"%s\" x=\"%.2f%%\" width=\"%.2f%%\" height=\"100%%\">"
                       "<title>%d %s</title></rect>\n",
                       pgp_state_name(shown_states[i]), percent_of(at, scale),
                       percent_of(n, scale), n, state_label(shown_states[i]));
        at += n;
    }
    print_tick(r, view->settings->min * view->children, scale);
    print_tick(r, view->limit, scale);
    ap_rprintf(r,
               "</svg>\n<svg class=\"thin\" role=\"img\" aria-label=\"%d waiting\">\n"
               "<rect class=\"track\" width=\"100%%\" height=\"100%%\"/>\n"
               "<rect class=\"waiting\" width=\"%.2f%%\" height=\"100%%\"/>\n</svg>\n",
               view->stats.waiting, percent_of(view->stats.waiting, scale));
}

static void print_limits(request_rec *r, const pgpool_pool_view *view)
{
    const pgp_settings *settings = view->settings;
    const int n = view->children;

    ap_rprintf(
        r, "<p class=\"note\">%d connections of at most %d: PgPoolMax %d × %d child%s = %d, ",
        pgpool_metric_connections(view), view->limit, settings->max, n, n == 1 ? "" : "ren",
        settings->max * n);
    if (settings->total_max)
        ap_rprintf(r, "PgPoolTotalMax %d", settings->total_max);
    else
        ap_rputs("no PgPoolTotalMax", r);
    ap_rprintf(r, " · dashed line: PgPoolMin %d × %d = %d</p>\n", settings->min, n,
               settings->min * n);
}

static void print_error(request_rec *r, const pgpool_pool_view *view, apr_time_t now)
{
    const pgp_error *error = &view->stats.error;

    if (!view->stats.error_at)
        return;
    ap_rprintf(r, "<p class=\"%s\"><strong>Last error, %s ago%s:</strong> %s%s%s%s</p>\n",
               view->stats.failures ? "error" : "note",
               duration_text(r->pool, now - view->stats.error_at),
               view->stats.failures ? "" : " (connecting works again)",
               html_escape(r, error->message), *error->sqlstate ? " (SQLSTATE " : "",
               html_escape(r, error->sqlstate), *error->sqlstate ? ")" : "");
}

/* --- a pool: tables --------------------------------------------------------- */

static void print_counter(request_rec *r, const pgpool_metric *metric, apr_int64_t total,
                          double rate)
{
    ap_rprintf(
        r, "<tr><th>%s <small>%s</small></th><td>%" APR_INT64_T_FMT "</td><td>%.1f</td></tr>\n",
        metric->label, metric->help, total, rate);
}

static void print_counters(request_rec *r, const pgpool_snapshot *all, int n,
                           const pgpool_baseline *before)
{
    const bool has_baseline = before && n < before->pools;
    const apr_int64_t *then = has_baseline ? before->counters + n * pgpool_baseline_counters()
                                           : NULL;
    const apr_interval_time_t time = all->now - (has_baseline ? before->at : all->start);
    const pgpool_metric *metric;

    ap_rprintf(r,
               "<table>\n<thead><tr><th></th><th>total</th><th>per&nbsp;second<br>%s&nbsp;%s"
               "</th></tr></thead>\n<tbody>\n",
               has_baseline ? "in the last" : "mean of", duration_text(r->pool, time));
    for (metric = pgpool_metrics; metric->key; metric++)
        if (pgpool_metric_is_plain_counter(metric)) {
            const apr_int64_t total = metric->get(view_of(all, n), metric->first);

            print_counter(r, metric, total,
                          (total - (then ? *then++ : 0)) / (time > 0 ? time / 1e6 : 1));
        }
    ap_rputs("</tbody>\n</table>\n", r);
}

static void print_histogram(request_rec *r, const pgpool_pool_view *view,
                            const pgpool_histogram *histogram)
{
    const apr_interval_time_t longest = pgpool_histogram_longest(view, histogram);
    const pgpool_quantile *quantile;

    ap_rprintf(r, "<tr><th>%s</th>", histogram->label);
    for (quantile = pgpool_quantiles; quantile->key; quantile++)
        ap_rprintf(r, "<td>%s</td>",
                   bound_text(r->pool, pgpool_histogram_quantile(view, histogram, quantile)));
    ap_rprintf(r, "<td>%s</td></tr>\n", longest ? duration_text(r->pool, longest) : "–");
}

static void print_histograms(request_rec *r, const pgpool_pool_view *view)
{
    const pgpool_quantile *quantile;
    const pgpool_histogram *histogram;

    ap_rputs("<table>\n<thead><tr><th></th>", r);
    for (quantile = pgpool_quantiles; quantile->key; quantile++)
        ap_rprintf(r, "<th>%s</th>", quantile->key);
    ap_rputs("<th>longest</th></tr></thead>\n<tbody>\n", r);
    for (histogram = pgpool_histograms; histogram->key; histogram++)
        print_histogram(r, view, histogram);
    ap_rputs("</tbody>\n</table>\n", r);
}

/* In one line, the members of a family that are not zero. */
static void print_family(request_rec *r, const pgpool_metric *metric,
                         const pgpool_pool_view *view)
{
    const char *comma = "";
    int i;

    ap_rprintf(r, "<p class=\"note families\">%s by %s: ", metric->label, metric->dimension);
    for (i = metric->first; i < metric->end; i++)
        if (metric->get(view, i) > 0) {
            ap_rprintf(r, "%s%s&nbsp;%" APR_INT64_T_FMT, comma, metric->member(i),
                       metric->get(view, i));
            comma = ", ";
        }
    ap_rputs(*comma ? "</p>\n" : "none</p>\n", r);
}

static void print_borrower(request_rec *r, const pgp_borrower *borrower, apr_time_t now)
{
    ap_rprintf(r,
               "<tr><td>%s</td><td class=\"left text\">%s</td><td class=\"left\">%s</td>"
               "<td>%u</td></tr>\n",
               duration_text(r->pool, now - borrower->since),
               *borrower->what ? html_escape(r, borrower->what) : "<em>not a request</em>",
               *borrower->client ? html_escape(r, borrower->client) : "–", borrower->backend);
}

static void print_borrowers(request_rec *r, const pgp_stats *stats, apr_time_t now)
{
    int i;

    if (!stats->borrowers[0].since)
        return;
    ap_rputs("<h3>Longest in use</h3>\n<div class=\"wide\"><table>\n<thead><tr><th>for</th>"
             "<th class=\"left\">request (handler)</th><th class=\"left\">client</th>"
             "<th>backend</th></tr></thead>\n<tbody>\n",
             r);
    for (i = 0; i < PGP_BORROWERS && stats->borrowers[i].since; i++)
        print_borrower(r, &stats->borrowers[i], now);
    ap_rputs("</tbody>\n</table></div>\n", r);
}

static void print_pool(request_rec *r, const pgpool_snapshot *all, int n,
                       const pgpool_baseline *before)
{
    const pgpool_pool_view *view = view_of(all, n);
    const char *word = pgpool_health_word(view->health);
    const pgpool_metric *metric;

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
    print_histograms(r, view);
    for (metric = pgpool_metrics; metric->key; metric++)
        if (metric->dimension && !pgpool_metric_is_state(metric)) /* the bars show the states */
            print_family(r, metric, view);
    ap_rputs("</div>\n</div>\n", r);
    print_borrowers(r, &view->stats, all->now);
    ap_rputs("</section>\n", r);
}

/* --- by child --------------------------------------------------------------- */

static bool is_shown_by_child(const pgpool_metric *metric)
{
    return metric->kind != PGPOOL_LIMIT && (metric->kind == PGPOOL_GAUGE || !metric->dimension);
}

static void print_child_labels(request_rec *r)
{
    const pgpool_metric *metric;
    int i;

    for (metric = pgpool_metrics; metric->key; metric++)
        if (is_shown_by_child(metric) && !metric->dimension)
            ap_rprintf(r, "<th title=\"%s\">%s</th>", metric->help, metric->label);
        else if (is_shown_by_child(metric))
            for (i = metric->first; i < metric->end; i++)
                ap_rprintf(r, "<th>%s</th>",
                           pgpool_metric_is_state(metric) ? state_label(i) : metric->member(i));
}

static void print_child_metrics(request_rec *r, const pgpool_pool_view *view)
{
    const pgpool_metric *metric;
    int i;

    for (metric = pgpool_metrics; metric->key; metric++)
        for (i = metric->first; is_shown_by_child(metric); i++) {
            ap_rprintf(r, "<td>%" APR_INT64_T_FMT "</td>", metric->get(view, i));
            if (!metric->dimension || i + 1 == metric->end)
                break;
        }
}

static void print_child(request_rec *r, const pgpool_child_view *child, int pools)
{
    int i;

    for (i = 0; i < pools; i++) {
        if (child->pid)
            ap_rprintf(r, "<tr><th>%d</th>", child->pid);
        else
            ap_rputs("<tr><th>ended</th>", r);
        ap_rprintf(r, "<td class=\"left\">%s</td>", child->pools[i].label);
        print_child_metrics(r, &child->pools[i]);
        ap_rputs("</tr>\n", r);
    }
}

static void print_children(request_rec *r, const pgpool_snapshot *all)
{
    const int pools = all->pools->nelts;
    int i;

    ap_rputs("<section>\n<h2>By child</h2>\n<div class=\"wide\"><table>\n<thead><tr>"
             "<th>pid</th><th class=\"left\">pool</th>",
             r);
    print_child_labels(r);
    ap_rputs("</tr></thead>\n<tbody>\n", r);
    for (i = 0; i < all->children->nelts; i++)
        print_child(r, &APR_ARRAY_IDX(all->children, i, pgpool_child_view), pools);
    print_child(r, &all->ended, pools);
    ap_rputs("</tbody>\n</table></div>\n</section>\n", r);
}

/* --- whole ------------------------------------------------------------------ */

void pgpool_print_html(request_rec *r, const pgpool_snapshot *all,
                       const pgpool_baseline *before, int refresh)
{
    int i;

    print_head(r, all);
    print_header(r, all, refresh);
    ap_rputs("<main>\n", r);
    if (all->pools->nelts == 0)
        ap_rputs("<section><p>No pool is configured.</p></section>\n", r);
    for (i = 0; i < all->pools->nelts; i++)
        print_pool(r, all, i, before);
    print_children(r, all);
    ap_rputs("</main>\n<footer><p class=\"note\">Each child publishes its metrics when "
             "something happens, and once a second at least. A time is the upper bound of its "
             "bucket; the longest is exact.  mod_pgpool " PGPOOL_VERSION ".</p></footer>\n"
             "</body>\n</html>\n",
             r);
}

/* Plain HTML, since mod_status has neither style nor classes. */
void pgpool_print_section(request_rec *r, const pgpool_snapshot *all)
{
    int i;

    ap_rputs("<hr>\n<h2>PostgreSQL pools</h2>\n<table border=\"0\" cellpadding=\"3\">\n<tr>"
             "<th>pool</th><th>health</th><th>in use</th><th>idle</th><th>connecting</th>"
             "<th>waiting</th><th>at most</th><th>acquires</th><th>exhausted</th>"
             "<th>unavailable</th><th>why</th></tr>\n",
             r);
    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_pool_view *view = view_of(all, i);
        const pgp_stats *stats = &view->stats;

        ap_rprintf(r,
                   "<tr><td>%s</td><td>%s</td><td>%d</td><td>%d</td><td>%d</td><td>%d</td>"
                   "<td>%d</td><td>%" APR_UINT64_T_FMT "</td><td>%" APR_UINT64_T_FMT
                   "</td><td>%" APR_UINT64_T_FMT "</td><td>%s</td></tr>\n",
                   view->label, pgpool_health_word(view->health), stats->state[PGP_IN_USE],
                   stats->state[PGP_IDLE], stats->state[PGP_CONNECTING], stats->waiting,
                   view->limit, stats->n[PGP_N_ACQUIRES], stats->n[PGP_N_EXHAUSTED],
                   stats->n[PGP_N_UNAVAILABLE], view->why);
    }
    ap_rputs("</table>\n", r);
}
