#!/usr/bin/perl

# PgPoolReset: no change of a session reaches the next request, of whatever kind it is and however
# the request ended; and a connection whose reset fails is not lent again.

use PgPoolTest;
use Crowd;
use Probe;

my $pg = postgres;
query($pg, $_) for 'CREATE ROLE app', 'CREATE ROLE limited LOGIN', 'CREATE SCHEMA hidden', 'CREATE SEQUENCE seq',
    'CREATE TABLE written (i int)', 'CREATE TABLE lost (i int)', 'CREATE TABLE serial (i serial)',
    'CREATE TABLE born (pid int PRIMARY KEY)',
    q(CREATE PROCEDURE change() LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('work_mem', '777kB', false); END $$),
    q(CREATE PROCEDURE change_and_fail() LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('work_mem', '777kB', false); COMMIT; RAISE 'failed'; END $$);

my $locks = q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid());
my $temp = q(SELECT to_regclass('pg_temp.dirt'));

# Kinds of changes that a request leaves: name, the statement that shows the change, the statements
# that make it.
my @seen = (
    ['SET' => 'SHOW work_mem', 'SET work_mem = 777'],
    ['SET in a transaction' => 'SHOW work_mem', 'BEGIN; SET work_mem = 777; COMMIT'],
    ['SET LOCAL' => 'SHOW work_mem', 'BEGIN; SET LOCAL work_mem = 777'],
    ['SET of what the connection string sets' => 'SHOW lock_timeout', 'SET lock_timeout = 1'],
    ['SET search_path' => 'SHOW search_path', 'SET search_path = hidden'],
    ['SET client_encoding' => 'SHOW client_encoding', 'SET client_encoding = LATIN1'],
    ['SET SESSION CHARACTERISTICS' => 'SHOW default_transaction_read_only',
        'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY'],
    ['SET ROLE' => 'SELECT current_user', 'SET ROLE app'],
    ['SET SESSION AUTHORIZATION' => 'SELECT session_user || current_user', 'SET SESSION AUTHORIZATION app'],
    ['both' => 'SELECT session_user || current_user', 'SET SESSION AUTHORIZATION app; SET ROLE app'],
    ['CREATE TEMP TABLE' => $temp, 'CREATE TEMP TABLE dirt ()'],
    ['CREATE TEMP TABLE AS' => $temp, 'CREATE TEMP TABLE dirt AS SELECT 1'],
    ['SELECT INTO TEMP' => $temp, 'SELECT 1 INTO TEMP dirt'],
    ['EXPLAIN ANALYZE of CREATE TEMP TABLE AS' => $temp,
        'EXPLAIN ANALYZE CREATE TEMP TABLE dirt AS SELECT 1'],
    ['a function in pg_temp' => 'SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()',
        q(CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1')],
    ['LISTEN' => 'SELECT count(*) FROM pg_listening_channels()', 'LISTEN gossip'],
    ['a cursor WITH HOLD' => 'SELECT count(*) FROM pg_cursors', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'],
    ['set_config() in DO' => 'SHOW work_mem',
        q(DO $$ BEGIN PERFORM set_config('work_mem', '777kB', false); END $$)],
    ['set_config() in CALL' => 'SHOW work_mem', 'CALL change()'],
    ['... that commits and fails' => 'SHOW work_mem', 'CALL change_and_fail()'],
    ['a lock before an error' => $locks, 'SELECT pg_advisory_lock(7), 1 / (random() * 0)::int'],
    ['a transaction' => 'SELECT now() = statement_timestamp()', 'BEGIN', 'INSERT INTO lost VALUES (1)'],
    ['... that has failed' => 'SELECT 1', 'BEGIN', 'INSERT INTO lost VALUES (1)', 'SELECT 1/0'],
    ['... that holds a lock' => $locks, 'BEGIN', 'SELECT pg_advisory_xact_lock(8)'],
);

# Changes that no command tag shows: PgPoolReset auto does not see them, as reference.conf says.
my @unseen = (
    ['set_config() in SELECT' => 'SHOW work_mem', q(SELECT set_config('work_mem', '777kB', false))],
    ['a lock' => $locks, 'SELECT pg_advisory_lock(pg_backend_pid())'],
    ['a shared lock' => $locks, 'SELECT pg_advisory_lock_shared(7)'],
    ['a sequence in SELECT' => 'SELECT lastval()', q(SELECT nextval('seq'))],
    ['a sequence in INSERT' => 'SELECT lastval()', 'INSERT INTO serial DEFAULT VALUES'],
);

# Many of these changes in one session.
my @everything = map { my $kind = $_; map { @$_[2 .. $#$_] } grep { $_->[0] eq $kind } @seen, @unseen } (
    'a sequence in SELECT', 'CREATE TEMP TABLE', 'LISTEN', 'a cursor WITH HOLD', 'a lock', 'SET',
    'SET search_path', 'SET client_encoding', 'SET SESSION CHARACTERISTICS', 'both', 'a transaction',
);

# A session without the statements that init SQL has prepared: the reset has to prepare them again.
my @forget = (
    ['DEALLOCATE' => 'SELECT count(*) FROM pg_prepared_statements', 'DEALLOCATE kept'],
    ['... and another of that name' => 'EXECUTE kept', 'DEALLOCATE kept', 'PREPARE kept AS SELECT 7'],
    ['DEALLOCATE ALL' => 'SELECT count(*) FROM pg_prepared_statements', 'DEALLOCATE ALL'],
    ['DISCARD ALL' => 'SELECT count(*) FROM pg_prepared_statements', 'DISCARD ALL'],
    ['DEALLOCATE in a DO' => 'SELECT count(*) FROM pg_prepared_statements',
        q(DO $$BEGIN EXECUTE 'DEALLOCATE kept'; END$$)],
    ['... and more' => 'SELECT count(*) FROM pg_prepared_statements', 'DISCARD ALL',
        'PREPARE kept AS SELECT 1', 'PREPARE another AS SELECT 1'],
);

# Pools of one connection, so that the next request has the same one.  The reset has other
# statements if a prepared statement has to stay, or if init SQL has to run again.
my %init = (
    sql => [q(SET work_mem = '5MB'), 'PREPARE kept AS SELECT 42', 'CREATE TEMP TABLE made (i int)',
        "LISTEN news", q(SELECT set_config('app.init', 'x', false) -- a comment)],
    stays => [['EXECUTE kept' => 42], ['SHOW work_mem' => '5MB'], ['SELECT count(*) FROM made' => 0],
        ['SELECT pg_listening_channels()' => 'news'], [q(SELECT current_setting('app.init')) => 'x']],
);
my @fresh = (['SHOW work_mem' => '4MB'], ['SELECT count(*) FROM pg_prepared_statements' => 0]);
my @kept  = (['SHOW work_mem' => '4MB'], ['EXECUTE kept' => 42]);
my @pool = (
    { name => 'session',       reset => 'session', kinds => [@seen, @unseen], stays => \@fresh },
    { name => 'session-kept',  reset => 'session', kinds => [@seen, @unseen], stays => \@kept },
    { name => 'session-init',  reset => 'session', kinds => [@seen, @unseen, @forget], %init },
    { name => 'all',           reset => 'all',     kinds => [@seen, @unseen], stays => \@fresh },
    { name => 'all-init',      reset => 'all',     kinds => [@seen, @unseen, @forget], %init },
    { name => 'auto',          reset => 'auto',    kinds => \@seen,           stays => \@fresh },
    { name => 'auto-kept',     reset => 'auto',    kinds => \@seen,           stays => \@kept },
    { name => 'auto-init',     reset => 'auto',    kinds => [@seen, @forget],  %init },
);

sub in_pool {
    my ($name, @line) = @_;
    return join "\n", "<PgPool $name>", @line, "</PgPool>\n";
}

sub pool_conf {
    my ($pool) = @_;
    return in_pool($pool->{name}, "PgPoolReset $pool->{reset}",
        map { qq(PgPoolInitSQL "$_") } @{ $pool->{sql} // [] });
}

# PgPoolAcquireTimeout is short for the requests that are to be refused.
my $conninfo = conninfo($pg, client_encoding => 'UTF8', options => q('-c lock_timeout=50s'));
my $born = 'PgPoolInitSQL "INSERT INTO born VALUES (pg_backend_pid())"';
my $httpd = probed(join("\n", "PgPoolConninfo \"$conninfo\"", 'PgPoolMax 1', 'PgPoolMin 1',
    'PgPoolAcquireTimeout 3s', 'PgPoolCheckTimeout 60s', 'ErrorDocument 409 /probe?notes',
    'MaxKeepAliveRequests 0', map({ pool_conf($_) } @pool),
    in_pool('transaction', 'PgPoolReset transaction'),
    in_pool('close', 'PgPoolReset close'),
    in_pool('limited', "PgPoolConninfo \"$conninfo user=limited\""),
    in_pool('limited-all', "PgPoolConninfo \"$conninfo user=limited\"", 'PgPoolReset all'),
    in_pool('once', $born),
    in_pool('late', 'PgPoolCheckTimeout 200ms',
        'PgPoolInitSQL "SELECT pg_sleep(600) FROM born WHERE pid = pg_backend_pid()"', $born),
    map { in_pool("crowded-$_", 'PgPoolMax 2', "PgPoolReset $_") } qw(session auto transaction)),
    threads => 20);

# ---- requests

sub statements { return map { "sql=$_" } @_ }

# The result of each statement in an answer: SQLSTATE, value, or status.
sub said {
    my ($answer) = @_;
    my @said;
    while ($answer->{content} =~ /^result=(\w+)\n(?:value=(.*)\n)?(?:sqlstate=(\w+)\n)?/mg) {
        push @said, $3 // $2 // $1;
    }
    return \@said;
}

# A backend, and its results for some statements.
sub look {
    my ($pool, @question) = @_;
    my $answer = probe($httpd, "acquire=$pool->{name}", statements(@question));
    return [told($answer, 'pid') // $answer->{content}, @{ said($answer) }];
}

# A pool's connection before any change: its backend, and the results of all questions.
sub first_look {
    my ($pool) = @_;
    my @question = (map({ $_->[1] } @{ $pool->{kinds} }), map { $_->[0] } @{ $pool->{stays} });
    my ($pid, @answer) = @{ look($pool, @question) };
    my %clean;
    @clean{@question} = @answer;
    is_deeply [map { $clean{ $_->[0] } } @{ $pool->{stays} }], [map { $_->[1] } @{ $pool->{stays} }],
        'the connection is in its initial state';
    return ($pid, \%clean);
}

sub wait_ended {
    my (@pid) = @_;
    my $pids = join ', ', @pid;
    ok poll_until { query($pg, "SELECT count(*) FROM pg_stat_activity WHERE pid IN ($pids)") == 0 },
        '... the backends have ended';
    return;
}

# ---- kinds of changes x ways to end a request

# Ways to end a request: functions of the pool's name and the commands.
my @ending = (
    ['return'                => sub { shift; probe($httpd, @_) }],
    ['release'               => sub { shift; probe($httpd, @_, 'release') }],
    ['an error'              => sub { shift; probe($httpd, @_, 'fail=500') }],
    ['an ErrorDocument'      => sub { shift; probe($httpd, @_, 'fail=409') }],
    ['an internal redirect'  => sub { my $pool = shift; probe($httpd, @_, "redirect=/probe?acquire=$pool") }],
    ['in a subrequest'       => sub { shift; probe($httpd, 'subreq=' . probe_at(@_)) }],
    ['an abort'              => sub { shift; probe($httpd, @_, 'abort') }],
);

sub kind_of_dirt {
    my ($pool, $kind, $pid, $clean) = @_;
    my ($name, $question, @dirt) = @$kind;
    my @question = ($question, map { $_->[0] } @{ $pool->{stays} });
    my $dirty = said(probe($httpd, "acquire=$pool->{name}", statements(@dirt, $question)));
    isnt $dirty->[-1], $clean->{$question}, "$name is seen in its own request";

    my %got = (before => look($pool, @question));
    for (@ending) {
        my ($how, $end) = @$_;
        $end->($pool->{name}, "acquire=$pool->{name}", statements(@dirt));
        $got{$how} = look($pool, @question);
    }
    my $expected = [$pid, @$clean{@question}];
    is_deeply \%got, { map { $_ => $expected } keys %got }, '... and not in the next, however it ends';
    return;
}

for my $pool (@pool) {
    subtest "matrix: $pool->{name}" => sub {
        # A request prepares the statement `kept`, which the reset leaves.
        probe($httpd, "acquire=$pool->{name}", 'sql=PREPARE kept AS SELECT 42') if $pool->{stays} == \@kept;
        my ($pid, $clean) = first_look($pool);
        kind_of_dirt($pool, $_, $pid, $clean) for @{ $pool->{kinds} };
        $pool->{pid} = $pid;
        $pool->{clean} = $clean;
    };
}

sub all_questions { my ($pool) = @_; return sort keys %{ $pool->{clean} } }

sub all_clean {
    my ($name, @pools) = @_;
    my @got      = map { look($_, all_questions($_)) } @pools;
    my @expected = map { [$_->{pid}, @{ $_->{clean} }{ all_questions($_) }] } @pools;
    is_deeply \@got, \@expected, $name;
    return;
}

subtest 'the client has gone meanwhile' => sub {
    my @held = map { hold($httpd, "acquire=$_->{name}", statements(@everything), 'gate', 'write=100000') } @pool;
    for my $held (@held) {
        $held->{pending}->abandon;
        Probe::open_gate($held);
    }
    all_clean('... and has left no change', @pool);
};

# PgPoolReset auto sees one command tag of @everything, and so undoes all of it.
subtest 'another request was refused meanwhile' => sub {
    my @held = map { hold($httpd, "acquire=$_->{name}", statements(@everything)) } @pool;
    my @refused = Pending::finish(map { $httpd->begin(probe_at("acquire=$_->{name}")) } @pool);
    is_deeply [map { told($_, 'status') } @refused], [('EEXHAUSTED') x @pool], 'they waited in vain';
    let_go(@held);
    all_clean('... and no change is left', @pool);
};

subtest 'clean within the same request, after a release' => sub {
    for my $pool (@pool) {
        my @question = all_questions($pool);
        my $answer = probe($httpd, "acquire=$pool->{name}", statements(@everything), 'release',
            "acquire=$pool->{name}", statements(@question));
        my @said = @{ said($answer) };
        is_deeply [@said[@everything .. $#said]], [@{ $pool->{clean} }{@question}], $pool->{name};
    }
};

subtest 'the state of libpq is undone, too' => sub {
    for my $name (map({ $_->{name} } @pool), 'transaction') {
        my $pid = told(probe($httpd, "acquire=$name", qw(verbose nonblocking notice trace pipeline)), 'pid');
        my $answer = probe($httpd, "acquire=$name", qw(verbose encoding state));
        tells $answer, { pid => $pid, verbosity => 1, encoding => 'UTF8', nonblocking => 0, pipeline => 0,
            processor => 'other' }, $name;
    }
    for my $pool (@pool) {
        probe($httpd, "acquire=$pool->{name}", 'sql=SET client_encoding = LATIN1');
        tells probe($httpd, "acquire=$pool->{name}", 'encoding'), { encoding => 'UTF8' },
            "$pool->{name}: libpq's encoding";
    }
};

# ---- state that a mode leaves on purpose

sub pool_named { my ($name) = @_; return (grep { $_->{name} eq $name } @pool)[0] }

# The server logs every statement, with the backend's pid.
subtest 'plans of functions' => sub {
    for my $name (qw(session auto session-init auto-init)) {
        my $from = -s $pg->logfile;
        my $pid = told(probe($httpd, "acquire=$name", 'sql=SET work_mem = 777'), 'pid');
        is told(probe($httpd, "acquire=$name"), 'pid'), $pid, "$name: it was reset";
        my @line = grep { /\[$pid\]/ } split /^/m, substr Httpd::slurp($pg->logfile), $from;
        ok scalar(grep { /RESET ALL/ } @line), '... by its statements';
        is_deeply [grep { /DISCARD (?:ALL|PLANS)|DEALLOCATE/ } @line], [], '... and the plans stay';
    }
};

subtest 'prepared statements' => sub {
    my @prepare = ('sql=PREPARE mine AS SELECT 7', 'prepare=SELECT 8');
    my @ask = statements('EXECUTE mine', 'EXECUTE protocol');
    for my $name (qw(session auto session-kept session-init auto-init)) {
        my $pid = told(probe($httpd, "acquire=$name", @prepare), 'pid');
        probe($httpd, "acquire=$name", statements(@everything)) for 1 .. 2;
        my $answer = probe($httpd, "acquire=$name", 'pid', @ask);
        is_deeply said($answer), [7, 8], "$name: they stay";
        is told($answer, 'pid'), $pid, '... on their connection';
    }
    for my $name (qw(all all-init)) {
        my $pid = told(probe($httpd, "acquire=$name", @prepare), 'pid');
        my $answer = probe($httpd, "acquire=$name", 'pid', @ask);
        is_deeply said($answer), ['26000', '26000'], "$name: they go";
        is told($answer, 'pid'), $pid, '... the connection stays';
    }
};

# State of the server's process, which no reset of a session undoes (reference.conf says so).
my @process = (
    ['LOAD' => q(SELECT count(*) FROM pg_settings WHERE name LIKE 'auto_explain.%'), q(LOAD 'auto_explain')],
    ['a connection of dblink' => 'SELECT dblink_get_connections()',
        qq(SELECT dblink_connect('mine', '@{[conninfo($pg) =~ s/'/''/gr]}'))],
);

subtest 'state of the process' => sub {
    query($pg, 'CREATE EXTENSION dblink');
    for (@process) {
        my ($name, $question, @dirt) = @$_;
        for my $pool (qw(all close)) {
            my $answer = probe($httpd, "acquire=$pool", statements($question, @dirt, $question));
            my @said = @{ said($answer) };
            isnt $said[-1], $said[0], "$name is seen in its own request";
            my $after = look({ name => $pool }, $question)->[1];
            $pool eq 'all' ? is($after, $said[-1], '... and in the next: PgPoolReset all leaves it')
                           : is($after, $said[0], '... and not in the next: PgPoolReset close');
        }
    }
};

subtest 'close' => sub {
    my %pid;
    for my $end ([], ['release'], ['sql=BEGIN', q(sql=INSERT INTO lost VALUES (1))], ['send=SELECT pg_sleep(600)'],
        ['pipeline=SELECT pg_sleep(600)'], ['sql=SET client_encoding = LATIN1']) {
        my $from = $httpd->log_end;
        my $pid = told(probe($httpd, 'acquire=close', 'sql=SELECT 1', @$end), 'pid');
        ok !$pid{$pid}++, join ' ', 'another connection', @$end;
        $httpd->wait_log(qr/pool close, backend $pid: closed \(reset\)/, from => $from);
        $httpd->wait_log(qr/pool close, backend (?!$pid:)\d+: connected/, from => $from);
    }
    wait_ended(keys %pid);
};

subtest 'auto sees only command tags' => sub {
    my $pool = pool_named('auto');
    for (@unseen) {
        my ($name, $question, @dirt) = @$_;
        probe($httpd, 'acquire=auto', statements(@dirt));
        my ($pid, $said) = @{ look($pool, $question) };
        isnt $said, said(probe($httpd, 'acquire=session', "sql=$question"))->[0], "$name: it stays";
        # A reset for a change that auto sees undoes this one, too.
        probe($httpd, 'acquire=auto', 'sql=SET work_mem = 777');
        is look($pool, $question)->[1], said(probe($httpd, 'acquire=session', "sql=$question"))->[0],
            '... until auto sees another change';
    }
};

subtest 'transaction: settings stay, transactions do not' => sub {
    my $pool = { name => 'transaction' };
    my $pid = look($pool)->[0];
    for (@seen, @unseen) {
        my ($name, $question, @dirt) = @$_;
        my ($clean) = look($pool, $question)->[1];
        probe($httpd, 'acquire=transaction', statements(@dirt));
        my @got = @{ look($pool, $question) };
        my $ends = ($dirt[0] =~ /^BEGIN/ && $dirt[-1] !~ /COMMIT/) || $name eq 'SET client_encoding';
        is $got[0], $pid, "$name: it is the same connection";
        $ends ? is($got[1], $clean, '... and it was undone')
              : isnt($got[1], $clean, '... and it was left as it was');
        probe($httpd, 'acquire=transaction', 'sql=DISCARD ALL');
    }
};

is query($pg, 'SELECT count(*) FROM lost'), 0, 'nothing of an open transaction was written';

# ---- a reset that fails or is late

# This init SQL violates a constraint when a reset runs it again.
subtest 'a failed reset' => sub {
    my $from = $httpd->log_end;
    my @pid = map { told(probe($httpd, 'acquire=once', 'sql=SET work_mem = 777'), 'pid') } 1 .. 3;
    my %pid = map { $_ => 1 } @pid;
    is keys %pid, 3, 'each request has another connection';
    $httpd->wait_log(qr/pool once, backend $pid[0]: found unfit .*\(unclean\): duplicate key value/, from => $from);
    $httpd->wait_log(qr/pool once, backend $_: closed \(unclean\)/, from => $from) for @pid[0, 1];
    wait_ended(@pid[0, 1]);
};

# Without the privilege for pg_advisory_unlock_all(), only DISCARD ALL releases a session's locks.
subtest 'a reset that the server refuses' => sub {
    query($pg, 'REVOKE EXECUTE ON FUNCTION pg_advisory_unlock_all() FROM PUBLIC');
    my $from = $httpd->log_end;
    my @answer = map { probe($httpd, 'acquire=limited', "sql=$locks", 'sql=SELECT pg_advisory_lock(pg_backend_pid())') } 1 .. 4;
    is_deeply [map { said($_)->[0] } @answer], [(0) x 4], 'no request sees the lock of the one before';
    my $log = $httpd->error_log($from);
    is scalar(() = $log =~ /PGP1019/g), 1, '... one warning for all';
    like $log, qr/pgpool:warn\] .*PGP1019: pool limited, backend \d+: the server refuses .*pg_advisory_unlock_all \(SQLSTATE 42501\)/,
        '... says why';
    my %pid = map { told(probe($httpd, 'acquire=limited-all', "sql=$locks", 'sql=SELECT pg_advisory_lock(pg_backend_pid())'), 'pid') => 1 } 1 .. 3;
    is keys %pid, 1, 'PgPoolReset all needs no privilege';
    query($pg, 'GRANT EXECUTE ON FUNCTION pg_advisory_unlock_all() TO PUBLIC');
};

subtest 'a late reset' => sub {
    my $from = $httpd->log_end;
    my @answer = map { probe($httpd, 'acquire=late', 'sql=SHOW work_mem', 'sql=SET work_mem = 777') } 1 .. 3;
    is_deeply [map { said($_)->[0] } @answer], [('4MB') x 3], 'no request sees the one before';
    my @pid = map { told($_, 'pid') } @answer;
    $httpd->wait_log(qr/pool late, backend $_: closed \(unclean\)/, from => $from) for @pid[0, 1];
    wait_ended(@pid[0, 1]);
};

subtest 'a connection that is terminated' => sub {
    for my $pool (@pool) {
        probe($httpd, "acquire=$pool->{name}", statements(@everything));
        query($pg, "SELECT pg_terminate_backend($pool->{pid})");
        wait_ended($pool->{pid});
        my ($pid, @said) = @{ look($pool, all_questions($pool)) };
        isnt $pid, $pool->{pid}, "$pool->{name}: another connection replaces it";
        my %clean = (%{ $pool->{clean} }, $pool->{stays} == \@kept ? ('EXECUTE kept' => '26000') : ());
        is_deeply \@said, [@clean{ all_questions($pool) }], '... and is clean';
    }
};

# ---- many requests

# Name of a change, a statement that the change would disturb, its undisturbed result, the
# statements that make the change.
my $write = 'INSERT INTO written VALUES (1)';
my @often = (
    ['BEGIN'                => $write, 'PGRES_COMMAND_OK', 'BEGIN', 'INSERT INTO lost VALUES (1)'],
    ['a failed transaction' => $write, 'PGRES_COMMAND_OK', 'BEGIN', 'INSERT INTO lost VALUES (1)', 'SELECT 1/0'],
    ['SET'                  => 'SHOW work_mem', '4MB', 'SET work_mem = 777'],
    ['an advisory lock'     => $locks, 0, 'SELECT pg_advisory_lock(pg_backend_pid())'],
);

# Four clients make changes and look for them, this often each.  Returns how often each kind was
# seen.
sub seen_of {
    my ($pool, $often) = @_;
    return crowd(4, sub {
        my ($client) = @_;
        my $ask = sub { said($client->get($httpd->url(probe_at("acquire=$pool", statements(@_)))))->[-1] };
        my %seen = map { $_->[0] => 0 } @often;
        for my $kind ((@often) x ($often / 4)) {
            my ($name, $look, $undisturbed, @dirt) = @$kind;
            $ask->(@dirt);
            $seen{$name}++ if $ask->($look) ne $undisturbed;
        }
        return \%seen;
    });
}

sub written { return query($pg, 'WITH w AS (DELETE FROM written RETURNING 1) SELECT count(*) FROM w') }

subtest 'a thousand times each' => sub {
    is_deeply seen_of('crowded-session', 1000), { map { $_->[0] => 0 } @often }, 'session: no request sees a change';
    is written(), 2000, '... and no row of others is lost';

    my $seen = seen_of('crowded-auto', 100);
    is $seen->{$_}, 0, "auto: no request sees $_" for 'BEGIN', 'a failed transaction', 'SET';
    $seen = seen_of('crowded-transaction', 100);
    is $seen->{$_}, 0, "transaction: no request sees $_" for 'BEGIN', 'a failed transaction';
    cmp_ok $seen->{$_}, '>', 0, "... but $_" for 'SET', 'an advisory lock';
    is written(), 400, 'no row of others is lost';
    is query($pg, 'SELECT count(*) FROM lost'), 0, '... and nothing of an open transaction was written';
};

# ---- a child that crashes

subtest 'a child that crashes' => sub {
    my $lock = q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711);
    my $held = hold($httpd, 'acquire=session', 'sql=SELECT pg_advisory_lock(4711)', statements(@everything));
    is query($pg, $lock), 1, 'its request holds a lock';
    $httpd->kill_child;
    $held->{pending}->finish;
    ok poll_until { query($pg, $lock) == 0 },
        '... which ends with the child';
    is query($pg, 'SELECT count(*) FROM lost'), 0, '... and nothing was written';
    ok poll_until { probe($httpd, 'acquire=session')->{status} == 200 }, 'another child serves';
};

done_testing;
