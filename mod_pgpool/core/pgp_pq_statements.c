/* Keeps the list of a connection's prepared statements. */

#include "pgp_pq_statements.h"

#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>

#include "pgp_alloc.h"

static size_t types_size(const pgp_pq_statement_key *key)
{
    return key->types ? key->nparams * sizeof(*key->types) : 0;
}

static bool keys_equal(const pgp_pq_statement_key *a, const pgp_pq_statement_key *b)
{
    return a->nparams == b->nparams && !a->types == !b->types && !strcmp(a->sql, b->sql) &&
           (!a->types || !memcmp(a->types, b->types, types_size(a)));
}

void pgp_pq_statements_init(pgp_pq_statements *list)
{
    APR_RING_INIT(&list->ring, pgp_pq_statement, entry);
    list->count = 0;
}

pgp_pq_statement *pgp_pq_statements_find(pgp_pq_statements *list,
                                         const pgp_pq_statement_key *key)
{
    pgp_pq_statement *statement;

    APR_RING_FOREACH (statement, &list->ring, pgp_pq_statement, entry) {
        if (statement->is_outdated || !keys_equal(&statement->key, key))
            continue;
        APR_RING_REMOVE(statement, entry);
        APR_RING_INSERT_HEAD(&list->ring, statement, pgp_pq_statement, entry);
        return statement;
    }
    return NULL;
}

/* One piece of memory: the struct, the types, the text. */
pgp_pq_statement *pgp_pq_statements_add(pgp_pq_statements *list,
                                        const pgp_pq_statement_key *key)
{
    const size_t types = types_size(key), text = strlen(key->sql) + 1;
    pgp_pq_statement *statement = pgp_alloc(sizeof(*statement) + types + text);
    Oid *own_types = (Oid *)(statement + 1);
    char *own_text = (char *)own_types + types;

    if (types)
        memcpy(own_types, key->types, types);
    memcpy(own_text, key->sql, text);
    statement->is_outdated = false;
    statement->key = (pgp_pq_statement_key){
        .sql = own_text, .nparams = key->nparams, .types = key->types ? own_types : NULL};
    apr_snprintf(statement->name, sizeof statement->name, "pgpool_%u", ++list->named);
    APR_RING_INSERT_HEAD(&list->ring, statement, pgp_pq_statement, entry);
    list->count++;
    return statement;
}

void pgp_pq_statements_outdate(pgp_pq_statements *list, pgp_pq_statement *statement)
{
    statement->is_outdated = true;
    APR_RING_REMOVE(statement, entry);
    APR_RING_INSERT_TAIL(&list->ring, statement, pgp_pq_statement, entry);
}

pgp_pq_statement *pgp_pq_statements_oldest(const pgp_pq_statements *list)
{
    return APR_RING_LAST(&list->ring);
}

void pgp_pq_statements_drop(pgp_pq_statements *list, pgp_pq_statement *statement)
{
    APR_RING_REMOVE(statement, entry);
    list->count--;
    free(statement);
}

void pgp_pq_statements_forget(pgp_pq_statements *list)
{
    while (list->count)
        pgp_pq_statements_drop(list, APR_RING_FIRST(&list->ring));
}
