#!/usr/bin/perl

# Everybody may create objects in a schema (public, before PostgreSQL 15), and an enemy has put a
# twin of every function, operator and type of pg_catalog there.  The SQL of mod_pgpool and
# mod_pgpool_query reaches no twin, wherever the schema stands in the pool's search_path.

use PgPoolTest;
use Probe;

my $pg = postgres;
query($pg, $_) for 'CREATE ROLE web LOGIN', 'CREATE ROLE enemy', 'GRANT CREATE ON SCHEMA public TO enemy';

# A twin writes a line into the server's log, and fails.  Some cannot be made (polymorphic ones, and
# those with arguments of the server's internal types) and are left out.  Each function also gets a
# twin whose arguments are all text, because PostgreSQL prefers that one for a call with literals.
query($pg, <<'SQL');
SET ROLE enemy;
SET search_path = pg_catalog;
SET client_min_messages = error;

CREATE FUNCTION public.hostile() RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN RAISE LOG 'hostile twin of a type'; RAISE EXCEPTION 'hostile'; END $$;

DO $do$
DECLARE twin record;
BEGIN
    FOR twin IN
        SELECT proname AS name, arguments, result
        FROM pg_proc p, LATERAL (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n)
                                 FROM unnest(proargtypes) WITH ORDINALITY u(t, n)) AS a(arguments),
             format_type(prorettype, NULL) AS result
        WHERE pronamespace = 'pg_catalog'::regnamespace
        UNION
        SELECT proname, rtrim(repeat('text, ', pronargs), ', '), 'text'
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND pronargs > 0
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', twin.name,
                twin.arguments, twin.result, format('BEGIN RAISE LOG %L; RAISE EXCEPTION %L; END',
                'hostile twin of function ' || twin.name, 'hostile'));
        EXCEPTION WHEN others THEN NULL;
        END;
    END LOOP;

    FOR twin IN
        SELECT o.oid, oprname AS name, format_type(oprresult, NULL) AS result,
               concat_ws(', ', format_type(NULLIF(oprleft, 0), NULL), format_type(oprright, NULL)) AS arguments,
               CASE WHEN oprleft <> 0 THEN 'LEFTARG = ' || format_type(oprleft, NULL) || ', ' ELSE '' END AS left_argument,
               format_type(oprright, NULL) AS right_argument
        FROM pg_operator o WHERE oprnamespace = 'pg_catalog'::regnamespace
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION public.hostile_%s(%s) RETURNS %s LANGUAGE plpgsql AS %L', twin.oid,
                twin.arguments, twin.result, format('BEGIN RAISE LOG %L; RAISE EXCEPTION %L; END',
                'hostile twin of operator ' || twin.name, 'hostile'));
            EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.hostile_%s, %s RIGHTARG = %s)', twin.name,
                twin.oid, twin.left_argument, twin.right_argument);
        EXCEPTION WHEN others THEN NULL;
        END;
    END LOOP;

    FOR twin IN SELECT typname AS name FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b'
    LOOP
        BEGIN
            EXECUTE format('CREATE DOMAIN public.%I AS pg_catalog.%I CHECK (public.hostile())', twin.name, twin.name);
        EXCEPTION WHEN others THEN NULL;
        END;
    END LOOP;
END $do$;
SQL

sub twins {
    my ($catalog, $namespace) = @_;
    return query($pg, "SELECT count(*) FROM $catalog WHERE $namespace = 'public'::regnamespace");
}

cmp_ok twins('pg_proc', 'pronamespace'),     '>', 4000, 'the enemy has functions';
cmp_ok twins('pg_operator', 'oprnamespace'), '>', 600,  '... and operators';
cmp_ok twins('pg_type', 'typnamespace'),     '>', 40,   '... and types';

# ---- all SQL of the modules

# The schema before pg_catalog, and behind it (a path that does not name pg_catalog has it first).
# Even behind it a twin wins if its argument types fit better.
my %path = (before => 'public,pg_catalog', behind => 'public');
my @mode = qw(session all auto transaction);

my @section;
for my $where (sort keys %path) {
    my $conninfo = conninfo($pg, user => 'web', options => "'-csearch_path=$path{$where}'");
    for my $mode (@mode) {
        push @section, <<"CONF";
<PgPool $where-$mode>
  PgPoolConninfo "$conninfo"
  PgPoolReset $mode
  PgPoolPing 0
</PgPool>
<PgPool $where-$mode-init>
  PgPoolConninfo "$conninfo"
  PgPoolReset $mode
  PgPoolPing 0
  PgPoolInitSQL "SET app.value = 1"
</PgPool>
<Location /rows/$where-$mode>
  PgPoolUse $where-$mode
  SetHandler pgpool-query
  PgPoolQuery "TABLE pg_catalog.pg_am"
</Location>
CONF
    }
}
my $httpd = probed(<<"CONF", modules => ['pgpool_query']);
PgPoolMin 0
PgPoolMax 2
@section
<Location /probe>
  PgPoolSet app.user "%{HTTP:X-User}"
  PgPoolSet app.client "client"
</Location>
<Location /probe/other>
  PgPoolSet app.other "other"
</Location>
CONF

my $from = -s $pg->logfile;

for my $where (sort keys %path) {
    for my $pool (map { ("$where-$_", "$where-$_-init") } @mode) {
        for my $user (qw(alice bob)) {
            my $answer = $httpd->get(
                probe_at("acquire=$pool", 'sql=SET app.more = 1', 'subreq=/probe/other?acquire=' . $pool, 'again'),
                { headers => { 'X-User' => $user } });
            tells $answer, { status => [0, 0], again => 0 }, "$pool: a request of $user";
        }
    }
    for my $path (map { "/rows/$where-$_" } @mode) {
        is $httpd->get($path)->{status}, 200, "$path: rows";
        is $httpd->begin($path, method => 'HEAD')->finish->{status}, 200, '... and their HEAD';
    }
}
$httpd->stop;

my %called = map { $_ => 1 } substr(Httpd::slurp($pg->logfile), $from) =~ /LOG:  (hostile twin .*)/g;
is_deeply [sort keys %called], [], 'no twin was called';

done_testing;
