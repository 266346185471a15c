# pgpool_query() and pgpool_query_rows(): a connection prepares a statement once, prepares it again
# if the session has lost it, and never runs it twice.

use PgPoolTest;
use JSON::PP;
use Probe;

my $pg = postgres();
query($pg, 'CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item VALUES (1, $$one$$), (2, $$two$$)');
my $conninfo = conninfo($pg);

sub served {
    my ($directives, %option) = @_;
    my $status = "<Location /status>\nSetHandler pgpool-status\n</Location>\n";
    return probed("PgPoolConninfo \"$conninfo\"\nPgPoolMin 1\nPgPoolMax 1\n$directives\n$status", %option);
}

# The names of the session's prepared statements.
my $prepared = q{sql=SELECT coalesce(string_agg(name, ' ' ORDER BY name), 'none') FROM pg_prepared_statements};

subtest 'a statement and its values' => sub {
    my $httpd = served('');
    tells probe($httpd, 'param=2', 'query=SELECT name FROM item WHERE id = $1'),
        { status => 0, result => 'PGRES_TUPLES_OK', value => 'two' }, 'its row';
    tells probe($httpd, 'query=INSERT INTO item VALUES (3)'),
        { status => 0, result => 'PGRES_COMMAND_OK' }, 'no rows';
    tells probe($httpd, 'query='), { status => 0, result => 'PGRES_EMPTY_QUERY' }, 'nothing';
    tells probe($httpd, 'query=SELEC'),
        { status => 'ESTATEMENT', result => 'PGRES_FATAL_ERROR', sqlstate => '42601' }, 'a bad one';
    tells probe($httpd, 'query=SELECT 1; SELECT 2'),
        { status => 'ESTATEMENT', sqlstate => '42601' }, 'two are none';
    my @bad_value = ('param=x', 'query=SELECT $1::int');
    tells probe($httpd, @bad_value), { status => 'ESTATEMENT', sqlstate => '22P02' }, 'a bad value';
    is probe($httpd, @bad_value, 'httpstatus')->{status}, 400, '... is 400';
    tells probe($httpd, 'query=COPY item TO STDOUT', 'query=SELECT 1'),
        { status => [qw(ESTATEMENT 0)], value => 1 }, 'a COPY, and what comes after it';
    tells probe($httpd, 'acquire', 'send=SELECT 1', 'query=SELECT 2'),
        { status => [qw(0 EUNAVAIL)] }, 'not beside another query';
    like $httpd->error_log, qr/pgpool:info.*PGP1020: .*SQLSTATE 22P02/, "a client's mistake is no error";
    $httpd->stop;
};

subtest 'rows as they come' => sub {
    my $httpd = served('');
    tells probe($httpd, 'rows=SELECT * FROM generate_series(1, 1000)'),
        { status => 0, rows => 1000, empty => 0 }, 'all rows';
    tells probe($httpd, 'rows=SELECT 1 AS a WHERE false'),
        { status => 0, rows => 0, calls => 0, empty => 1 }, 'none, but the columns once';
    tells probe($httpd, 'rows=DELETE FROM item WHERE id = 99'),
        { status => 0, calls => 0, empty => 0 }, 'no rows';
    tells probe($httpd, 'rows=SELECT 1 / (3 - i) FROM generate_series(1, 5) i'),
        { status => 'ESTATEMENT', rows => 2 }, 'an error after two rows';
    tells probe($httpd, 'stop=SELECT generate_series(1, 100000000)', 'query=SELECT 7'),
        { status => [qw(EGENERAL 0)], value => 7 }, 'ended by the function, and what comes after it';
    # The server sends rows as soon as it has eight kilobytes of them.
    my $slow = q{stop=SELECT repeat('x', 10000), pg_sleep(greatest(i - 3, 0) * 30) FROM generate_series(1, 5) i};
    tells probe($httpd, 'acquire', $slow, 'again', 'again'),
        { status => [0, 'EGENERAL'], again => ['ELOST', 0] },
        '... a connection that the handler has is lost';
    $httpd->stop;
};

# The first two rows are there when the session ends.  The function acquires, as an output filter of
# another module may that the rows pass.
subtest 'a loss that is noticed between two rows' => sub {
    my $httpd = served('');
    my $dies = q{=SELECT repeat('x', 10000), CASE WHEN i = 3 THEN pg_terminate_backend(pg_backend_pid()) END}
        . ' FROM generate_series(1, 5) i';
    for my $before ([], ['acquire']) {
        my @has = map { 0 } @$before;
        tells probe($httpd, @$before, "meddle$dies", 'again', 'sql=SELECT 7'),
            { status => @has ? [@has, 'ELOST'] : 'ELOST', meddled => 'ELOST', again => 0, value => 7 }, 'reported to the function';
        tells probe($httpd, @$before, "replace$dies", 'again', 'sql=SELECT 7'),
            { status => @has ? [@has, 'ELOST'] : 'ELOST', meddled => ['ELOST', 0], again => 0, same => 1, value => 7 },
            '... which has the next connection already: it stays';
    }
    $httpd->stop;
};

subtest 'prepared once a connection' => sub {
    my $httpd = served('');
    my $select = 'query=SELECT name FROM item WHERE id = $1';
    for my $id (1, 2) {
        tells probe($httpd, "param=$id", $select), { status => 0 }, "asked for $id";
    }
    tells probe($httpd, 'acquire', $prepared), { value => 'pgpool_1' }, 'one statement';
    my $seen = sub { decode_json($httpd->get('/status?json')->{content})->{pools}{default} };
    ok poll_until { $seen->()->{statement_hits} == 1 && $seen->()->{statement_misses} == 1 },
        'a miss and a hit are counted' or diag explain $seen->();
    tells probe($httpd, 'query=SELEC', 'acquire', $prepared), { value => 'pgpool_1' }, 'a statement that fails is not kept';
    tells probe($httpd, 'acquire', 'sql=DISCARD ALL', 'param=1', $select, $prepared),
        { value => [qw(one pgpool_3)] }, 'made anew after a DISCARD ALL';
    tells probe($httpd, 'acquire', 'sql=PREPARE own AS SELECT 1', 'sql=DEALLOCATE own', 'param=1', $select, $prepared),
        { value => [qw(one pgpool_3)] }, "a borrower's own statements do not matter";
    $httpd->stop;
};

subtest 'no more than PgPoolStatements' => sub {
    my $httpd = served('PgPoolStatements 2');
    probe($httpd, "query=SELECT $_") for 1, 2, 1, 3;
    tells probe($httpd, 'acquire', $prepared), { value => 'pgpool_1 pgpool_3' }, 'the statement that was not used for longest is dropped';
    tells probe($httpd, 'acquire', 'sql=BEGIN', 'query=SELECT 4', $prepared),
        { value => [4, 'pgpool_1 pgpool_3'] }, 'in a transaction none is dropped';
    for my $n (1 .. 3) {
        tells probe($httpd, 'query=SELECT * FROM item WHERE id = 1'), { status => 0, value => 1 }, "result's shape $n";
        query($pg, "ALTER TABLE item ADD shape$n text");
    }
    tells probe($httpd, 'acquire', $prepared), { value => 'pgpool_3 pgpool_6' }, '... and those of former shapes are dropped';
    $httpd->stop;
    for my $directives ('PgPoolStatements 0', 'PgPoolReset all', 'PgPoolReset transaction') {
        $httpd = served($directives);
        tells probe($httpd, 'query=SELECT 1', 'acquire', $prepared), { value => [1, 'none'] }, "$directives: none";
        $httpd->stop;
    }
    $httpd = served("PgPoolReset transaction\nPgPoolStatements 5");
    tells probe($httpd, 'query=SELECT 1', 'acquire', $prepared), { value => [1, 'pgpool_1'] }, 'but an explicit PgPoolStatements counts';
    $httpd->stop;
};

subtest 'made again' => sub {
    my $httpd = served('');
    my $all = 'query=SELECT * FROM item WHERE id = 1';
    my $forget = q{query=DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$};
    tells probe($httpd, $all, $forget, $all), { status => [0, 0, 0] }, 'after a DEALLOCATE ALL that no command tag shows';
    tells probe($httpd, $all, 'acquire', $forget, 'sql=BEGIN', $all, $all, 'sql=ROLLBACK', $all),
        { status => [0, 0, 0, 'ESTATEMENT', 'ESTATEMENT', 0], sqlstate => [qw(26000 25P02)] },
        'not inside of a transaction, which the error has ended';
    probe($httpd, $all);
    query($pg, 'ALTER TABLE item ADD color text');
    tells probe($httpd, $all), { status => 0, value => 1 }, "after a change of the result's shape";
    query($pg, 'ALTER TABLE item DROP color');
    tells probe($httpd, 'acquire', 'sql=BEGIN', $all, 'sql=ROLLBACK', $all),
        { status => [0, 'ESTATEMENT', 0], sqlstate => '0A000' }, '... not inside of a transaction';
    query($pg, 'DROP TABLE item; CREATE TABLE item (id bigint, name text); INSERT INTO item VALUES (1, $$new$$)');
    tells probe($httpd, $all), { status => 0, value => 1 }, 'after the table was made anew';
    $httpd->stop;
};

# The SQLSTATEs that mean "prepare again" may also come from inside a procedure.
subtest 'never run twice' => sub {
    my $httpd = served('');
    query($pg, <<'SQL');
CREATE TABLE run (n int);
CREATE PROCEDURE once(code text) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO run VALUES (1);
    COMMIT;
    RAISE EXCEPTION USING ERRCODE = code;
END $$
SQL
    for my $code (qw(26000 0A000)) {
        tells probe($httpd, "param=$code", 'query=CALL once($1)'), { status => 'ESTATEMENT', sqlstate => $code }, "refused with $code";
        is query($pg, 'DELETE FROM run RETURNING n'), 1, '... once';
    }
    $httpd->stop;
};

subtest 'with PgPoolReset auto a prepared statement causes no reset' => sub {
    my $httpd = served('PgPoolReset auto');
    probe($httpd, 'query=SELECT 1');
    tells probe($httpd, 'acquire', 'sql=SELECT 5', $prepared), { value => [5, 'pgpool_1'] }, 'it stays';
    $httpd->stop;
};

# The server waits for the table's lock in Parse, and the deadline cancels that.
subtest 'a statement whose preparation failed does not count as prepared' => sub {
    my $httpd = served("PgPoolStatementTimeout 300ms\n<PgPool locker>\n</PgPool>");
    my $lock = hold($httpd, 'acquire=locker', 'sql=BEGIN', 'sql=LOCK TABLE item', 'gate');
    my @item = ('query=SELECT count(*) FROM item');
    tells probe($httpd, @item), { status => 'ETIMEDOUT' }, 'the table is locked';
    let_go($lock);
    poll_until { told(probe($httpd, 'acquire'), 'status') eq '0' };
    tells probe($httpd, 'acquire', 'sql=BEGIN', @item), { status => [0, 0] }, 'afterwards it is prepared';
    $httpd->stop;
};

subtest 'the connection is lost' => sub {
    my $httpd = served('');
    tells probe($httpd, 'query=SELECT pg_terminate_backend(pg_backend_pid())', 'query=SELECT 2'),
        { status => [qw(ELOST 0)], value => 2 }, 'ELOST once';
    like $httpd->error_log, qr/PGP1012: .*is gone: .*administrator command.*57P01/, '... with the cause in the log';
    $httpd->stop;
};

done_testing;
