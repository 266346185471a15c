/*
 * The module's own symbol, for the files that look up its configuration.
 */
#ifndef MOD_PGPOOL_MODULE_H
#define MOD_PGPOOL_MODULE_H

#include <httpd.h>
#include <http_config.h>

/* The one symbol that httpd looks for; all others are hidden (-fvisibility). */
extern module __attribute__((visibility("default"))) pgpool_module;

#endif
