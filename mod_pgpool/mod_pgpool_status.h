/*
 * The printers of the status: each prints a snapshot in one format.
 */
#ifndef MOD_PGPOOL_STATUS_H
#define MOD_PGPOOL_STATUS_H

#include <httpd.h>

#include "mod_pgpool_baseline.h"
#include "mod_pgpool_view.h"

/* before: NULL if there is none; refresh: seconds, 0: never. */
void pgpool_print_html(request_rec *r, const pgpool_snapshot *all,
                       const pgpool_baseline *before, int refresh);
/* The section in mod_status. */
void pgpool_print_section(request_rec *r, const pgpool_snapshot *all);
void pgpool_print_json(request_rec *r, const pgpool_snapshot *all);
void pgpool_print_openmetrics(request_rec *r, const pgpool_snapshot *all);
void pgpool_print_auto(request_rec *r, const pgpool_snapshot *all);

#endif
