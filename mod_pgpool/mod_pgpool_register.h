/*
 * The functions that register the hooks, filters and handlers of other files; mod_pgpool.c
 * calls them.
 */
#ifndef MOD_PGPOOL_REGISTER_H
#define MOD_PGPOOL_REGISTER_H

void pgpool_bracket_register(void);  /* mod_pgpool_bracket.c */
void pgpool_control_register(void);  /* mod_pgpool_control.c */
void pgpool_home_register(void);     /* mod_pgpool_home.c */
void pgpool_identity_register(void); /* mod_pgpool_identity.c */
void pgpool_ready_register(void);    /* mod_pgpool_ready.c */
void pgpool_release_register(void);  /* mod_pgpool_release.c */
void pgpool_status_register(void);   /* mod_pgpool_status.c */

#endif
