#!/usr/bin/perl

# Connections and servers that go away, come back, refuse or do not answer; PgPoolInitSQL; pings;
# idle time and lifetime.

use PgPoolTest;
use FaultProxy;
use Probe;

my $pg = postgres;

# The directives of a pool; its connections have the pool's name as application_name.
sub pool {
    my ($name, @line) = @_;
    my $conninfo = conninfo($pg, application_name => $name);
    return join "\n", qq(PgPoolConninfo "$conninfo"), @line;
}

sub in_pool {
    my ($name, @line) = @_;
    return join "\n", "<PgPool $name>", pool($name, @line), '</PgPool>';
}

# The path of a request that is answered with 200 if it gets a connection.
sub served { return probe_at("acquire=$_[0]", 'httpstatus', 'sql=SELECT 1') }

sub all_served {
    my ($httpd, $number, $pool, $name) = @_;
    my @answer = $httpd->get_parallel($number, served($pool));
    my @served = grep { $_->{status} == 200 && told($_, 'result') eq 'PGRES_TUPLES_OK' } @answer;
    is @served, $number, $name or diag map { "$_->{status}: $_->{content}" } @answer;
    return;
}

# The backends of a pool, the oldest first.
sub backend_pids {
    my ($pool) = @_;
    return split ' ', query($pg, "SELECT pid FROM pg_stat_activity
        WHERE application_name = '$pool' ORDER BY backend_start");
}

# Terminate backends, and wait until they have ended: then their sockets are closed.
sub terminate {
    my @pid = @_;
    query($pg, 'SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[' . join(',', @pid) . ']) pid');
    poll_until { !grep { kill 0, $_ } @pid } or die "@pid: some live on\n";
    return;
}

# Open this many connections by requests at the same time, in one child or in several.  Returns
# their backends.
sub fill {
    my ($httpd, $number, $pool) = @_;
    my @held = map { hold($httpd, "acquire=$pool") } 1 .. $number;
    return map { told($_, 'pid') } let_go(@held);
}

# ---- on each MPM

sub killed_while_idle {
    my ($httpd) = @_;
    my %pids = map { $_ => 1 } fill($httpd, 8, 'patient');
    is keys %pids, 8, 'eight are idle';
    terminate(keys %pids);
    all_served($httpd, 16, 'patient', 'all of them killed: no request fails');
    return;
}

sub server_stopped {
    my ($httpd) = @_;
    my $from = $httpd->log_end;
    $pg->stop('fast');
    my $cause = qr/(?:No such file or directory|Connection refused)/;
    # Each child notices that at a request.
    my $refused = poll_until {
        my $answer = $httpd->get(served('default'));
        $answer->{status} == 503 && $answer;
    };
    ok $refused, 'the server is stopped: 503';
    ok $refused->{headers}{'retry-after'}, '... with Retry-After';
    ok $httpd->wait_log(qr/PGP1002: pool default: cannot connect: .*$cause/, from => $from),
        '... the log says why';
    like $httpd->error_log($from), qr/PGP1011: pool default: .*$cause.*waited \d+ ms/,
        '... for the request, too';
    ok poll_until { told(probe($httpd, qw(acquire notes)), 'note.pgpool-default-wait') eq '0' },
        '... and soon requests are refused at once';

    my @waiting = map { $httpd->begin(served('patient')) } 1 .. 4;
    $httpd->wait_log(qr/PGP1002: pool patient: cannot connect/, from => $from);
    $pg->start;
    is_deeply [map { $_->{status} } finish(@waiting)], [(200) x 4], 'requests that waited are served';
    ok poll_until { $httpd->get(served('default'))->{status} == 200 }, 'and service returns';
    $httpd->wait_log(qr/PGP1008: pool default: the server answers again/, from => $from);
    return;
}

sub server_restarted {
    my ($httpd) = @_;
    fill($httpd, 4, 'patient');
    $pg->restart;
    all_served($httpd, 8, 'patient', 'the server restarted: no request fails');
    return;
}

for my $mpm (mpms()) {
    subtest $mpm => sub {
        my $httpd = probed(join("\n",
            pool('default', 'PgPoolMax 8', 'PgPoolAcquireTimeout 1s', 'PgPoolRetry 10ms 200ms'),
            in_pool('patient', 'PgPoolAcquireTimeout 60s')), mpm => $mpm, threads => 8);
        killed_while_idle($httpd);
        server_stopped($httpd);
        server_restarted($httpd);
        $httpd->stop;
    };
}

# ---- a pinned connection

my $httpd = probed(join "\n",
    pool('default', 'PgPoolMax 4', 'PgPoolAcquireTimeout 60s'),
    in_pool('pinned'),
    in_pool('always', 'PgPoolPing 0'),
    in_pool('never', 'PgPoolPing off'),
    in_pool('old', 'PgPoolPing 100ms'),
    in_pool('young'),
    in_pool('stuck', 'PgPoolPing 0', 'PgPoolCheckTimeout 300ms', 'PgPoolMax 1'),
    in_pool('pair', 'PgPoolPing off', 'PgPoolMin 0', 'PgPoolMax 2'),
    map { in_pool("leaving-$_", "PgPoolReset $_", 'PgPoolMax 1', 'PgPoolInitSQL "CREATE TEMP TABLE made ()"') }
        qw(session transaction));

# A request whose connection is killed while it is at its gate.
sub pinned_and_killed {
    my (@command) = @_;
    my $held = hold($httpd, 'acquire=pinned', 'sql=BEGIN', 'gate', @command);
    terminate(query($pg, q(SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction')));
    return let_go($held);
}

subtest 'a pinned connection that dies' => sub {
    my $from = $httpd->log_end;
    my $answer = pinned_and_killed(qw(again again pid again), 'sql=SELECT 1', 'notes');
    tells $answer, { again => ['ELOST', 0, 0], same => [0, 0, 1],
        result => [qw(PGRES_COMMAND_OK PGRES_TUPLES_OK)] }, 'ELOST once, then a new connection';
    my ($old, $new) = @{ told_all($answer, 'pid') };
    isnt $new, $old, '... with another backend';
    my $cause = qr/pool pinned: backend $old, pinned to this request, is gone/;
    like $httpd->error_log($from), qr/PGP1012: $cause/, '... the log says so';
    like told($answer, 'note.pgpool-error'), $cause, '... and the note';

    $answer = pinned_and_killed(qw(again httpstatus));
    is $answer->{status}, 503, 'it is 503';
    ok $answer->{headers}{'retry-after'}, '... with Retry-After';
    tells pinned_and_killed('subreq=' . probe_at('acquire=pinned'), 'again'),
        { status => [0, 'ELOST'], again => 0 }, 'a subrequest may get the ELOST';
    tells pinned_and_killed('sql=SELECT 1'), { status => 0,
        result => [qw(PGRES_COMMAND_OK PGRES_FATAL_ERROR)] }, 'a query on it fails';
    tells probe($httpd, 'acquire=pinned', 'sql=SELECT 1'), { result => 'PGRES_TUPLES_OK' },
        '... and the next request notices nothing';
};

# ---- checked before it is lent

# The server logs every statement; a ping is an empty one.
sub pings {
    my ($pool) = @_;
    return scalar(() = Httpd::slurp($pg->logfile) =~ /\] $pool LOG:  statement: $/mg);
}

subtest 'when there is a ping' => sub {
    my $three = sub { probe($httpd, map { ("acquire=$_[0]", "release=$_[0]") } 1 .. 3) };
    my @case = (
        [always => 3, 'PgPoolPing 0: each time'],
        [never  => 0, 'off: never'],
        [young  => 0, 'not yet due'],
    );
    for (@case) {
        my ($pool, $expected, $name) = @$_;
        fill($httpd, 1, $pool);
        my $before = pings($pool);
        tells $three->($pool), { status => [0, 0, 0] }, "$name: is lent";
        is pings($pool) - $before, $expected, '... pings';
    }
    fill($httpd, 1, 'old');
    my $before = pings('old');
    tells probe($httpd, 'sleep=0.11', 'acquire=old'), { status => 0 }, 'idle for PgPoolPing';
    is pings('old') - $before, 1, '... one ping';
};

subtest 'no answer to a ping' => sub {
    my ($pid) = fill($httpd, 1, 'stuck');
    kill STOP => $pid or die "kill: $!";
    my $answer = probe($httpd, 'acquire=stuck', 'sql=SELECT 1');
    kill CONT => $pid;
    tells $answer, { status => 0, result => 'PGRES_TUPLES_OK' }, 'the request is served';
    isnt told($answer, 'pid'), $pid, '... by another backend';
    like $httpd->error_log, qr/PGP1006: pool stuck, backend $pid: found unfit .* \(ping\)/,
        '... the log says why';
};

subtest 'a dead connection makes those suspect that were idle then' => sub {
    my %idle = map { $_ => 1 } fill($httpd, 2, 'pair');
    my $newest = told(probe($httpd, 'acquire=pair'), 'pid');
    terminate($newest);
    my $before = pings('pair');
    delete $idle{$newest};
    is told(probe($httpd, 'acquire=pair'), 'pid'), (keys %idle)[0], 'the other one is lent';
    is pings('pair') - $before, 1, '... after a ping that was not due';
};

# ---- a backend that has sent the cause of its end, and whose socket is still open

# Wait until a pool's only connection is idle and its reset is done.  Returns its backend and the
# schema of its temporary table.
sub idle_backend {
    my ($pool) = @_;
    my $answer = probe($httpd, "acquire=$pool", 'sql=SELECT pg_my_temp_schema()::regnamespace');
    my $pid = told($answer, 'pid');
    my $last = $pool =~ /session/ ? 'DISCARD' : 'pg_my_temp_schema';
    poll_until { query($pg, "SELECT state = 'idle' AND query ~ '$last' FROM pg_stat_activity
        WHERE pid = $pid") eq 't' } or die "backend $pid is not idle\n";
    return ($pid, told($answer, 'value'));
}

# Terminate a backend that cannot drop its temporary table: it sends its last words, and then waits
# for the table's lock.  Returns the request that holds the lock.
sub says_last_words {
    my ($pid, $schema) = @_;
    my $locks = hold($httpd, 'acquire=young', 'sql=BEGIN',
        "sql=LOCK TABLE $schema.made IN ACCESS SHARE MODE", 'gate');
    query($pg, "SELECT pg_terminate_backend($pid)");
    poll_until { query($pg, "SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted") }
        or die "backend $pid does not wait\n";
    return $locks;
}

sub another_serves {
    my ($pool, $pid, $name) = @_;
    my $answer = probe($httpd, "acquire=$pool", 'sql=SELECT 42');
    tells $answer, { status => 0, result => 'PGRES_TUPLES_OK', value => 42 }, $name;
    isnt told($answer, 'pid'), $pid, '... by another connection';
    return;
}

# A backend ends while a request has its connection; then the request runs these commands.
sub heard_while_lent {
    my ($pool, @then) = @_;
    my ($pid, $schema) = idle_backend($pool);
    my $held = hold($httpd, "acquire=$pool", 'gate', 'notifies', @then);
    my $locks = says_last_words($pid, $schema);
    my $answer = let_go($held);
    is told($answer, 'pid'), $pid, 'its borrower has read the last words';
    another_serves($pool, $pid, '... the next is served');
    let_go($locks);
    return $answer;
}

for my $pool (qw(leaving-session leaving-transaction)) {
    subtest "$pool: last words" => sub {
        my $from = $httpd->log_end;
        my ($pid, $schema) = idle_backend($pool);
        my $locks = says_last_words($pid, $schema);
        another_serves($pool, $pid, 'sent while it was idle: the next request is served');
        let_go($locks);
        my $words = qr/terminating connection due to administrator command/;
        like $httpd->error_log($from), qr/PGP1006: pool $pool, backend $pid: found unfit .* \(lost\): $words/,
            '... the log has them';
        heard_while_lent($pool);
        tells heard_while_lent($pool, qw(again again)), { again => ['ELOST', 0] }, '... and the borrower gets ELOST';
    };
}
$httpd->stop;

# ---- a server that rejects connections: no request waits

subtest 'refused' => sub {
    Httpd::spew($pg->data_dir . '/pg_hba.conf',
        "local all guarded scram-sha-256\nlocal all all trust\n");
    query($pg, "CREATE ROLE guarded LOGIN PASSWORD 'right'");
    $pg->reload;
    my ($host, $port) = ($pg->host, $pg->port);
    my %conninfo = (
        '28P01' => 'user=guarded password=wrong dbname=postgres',
        '28000' => 'user=nobody_here dbname=postgres',
        '3D000' => 'dbname=nothing_here',
    );
    my $refused = probed(join "\n", 'PgPoolAcquireTimeout 1h', 'PgPoolMin 0',
        (map { "<PgPool p$_>\nPgPoolConninfo \"host=$host port=$port $conninfo{$_}\"\n</PgPool>" }
            sort keys %conninfo));
    for my $sqlstate (sort keys %conninfo) {
        my $answer = probe($refused, "acquire=p$sqlstate", 'notes');
        tells $answer, { status => 'EUNAVAIL' }, "$conninfo{$sqlstate}: refused";
        like told($answer, 'note.pgpool-error'), qr/SQLSTATE $sqlstate/, '... the note says why';
        ok $refused->wait_log(qr/PGP1002: pool p$sqlstate: cannot connect: .*$sqlstate/),
            '... and the log';
        like $refused->error_log, qr/PGP1011: pool p$sqlstate: .*\(SQLSTATE $sqlstate, waited/,
            '... also for the request';
        is probe($refused, "acquire=p$sqlstate", 'httpstatus')->{status}, 503, '... it is 503';
    }
    $refused->stop;
};

# ---- a server that accepts connections and sends nothing

sub proxied {
    my ($name, $proxy, @line) = @_;
    my $conninfo = conninfo($pg, application_name => $name, via($proxy));
    return join "\n", "<PgPool $name>", qq(PgPoolConninfo "$conninfo"), @line, '</PgPool>';
}

subtest 'a slow connect delays no request' => sub {
    my $proxy = FaultProxy->new($pg);
    my $slow = probed(join "\n", 'PgPoolAcquireTimeout 1h', 'PgPoolMin 0',
        proxied('slow', $proxy, 'PgPoolMin 1', 'PgPoolMax 4', 'PgPoolConnectTimeout 1h'),
        in_pool('direct', 'PgPoolMax 2'),
        proxied('mute', $proxy, 'PgPoolConnectTimeout 200ms', 'PgPoolAcquireTimeout 1s'));
    my $held = hold($slow, 'acquire=slow');
    my $accepted = $proxy->accepted;
    $proxy->mode('mute');
    my @asking = map { $slow->begin(probe_at('acquire=slow')) } 1 .. 3;
    ok poll_until { $proxy->accepted > $accepted }, 'a new connection is under way, and hangs';

    tells probe($slow, 'acquire=direct'), { status => 0 }, 'another pool connects meanwhile';
    my @answer = (let_go($held), finish(@asking));
    is_deeply [map { told($_, 'status') } @answer], [(0) x 4], 'the returned connection serves the waiting requests';
    my %pids = map { told($_, 'pid') => 1 } @answer;
    is keys %pids, 1, '... and no other connection does';
    all_served($slow, 20, 'slow', '... and later requests');

    my $from = $slow->log_end;
    my $timeout = qr/PgPoolConnectTimeout/;
    tells probe($slow, 'acquire=mute'), { status => 'EUNAVAIL' }, 'nothing but silence: EUNAVAIL';
    ok $slow->wait_log(qr/PGP1002: pool mute: cannot connect: .*$timeout/, from => $from),
        '... the log says why';
    like $slow->error_log($from), qr/PGP1011: pool mute: .*$timeout/, '... for the request, too';
    $proxy->mode('pass');
    ok poll_until { $slow->get(served('mute'))->{status} == 200 }, 'and service returns';
    $slow->stop;
};

# ---- PgPoolInitSQL

sub init {
    my ($name, @sql) = @_;
    my $patience = $name =~ /good|many/ ? '60s' : '500ms';
    return in_pool($name, "PgPoolAcquireTimeout $patience", map { qq(PgPoolInitSQL "$_") } @sql);
}

subtest 'PgPoolInitSQL' => sub {
    my $init = probed(join "\n", 'PgPoolMin 0', 'PgPoolMax 1',
        init('good', q(SET app.one = '1'), q(SET app.two = '2')),
        init('many', 'SELECT 1; SELECT 2; SET app.one = 3'),
        init('bad', 'SELECT 1', 'SELECT nothing_here'),
        init('open', 'BEGIN'),
        init('hides', 'SELECT 1; PREPARE q AS SELECT 1'),
        init('copies', 'COPY pg_class TO STDOUT'),
        init('dies', 'SELECT pg_terminate_backend(pg_backend_pid())'),
        init('late', 'SELECT pg_sleep(600)'), 'PgPoolConnectTimeout 2s');
    my @ask = ('sql=SHOW app.one', 'sql=SHOW app.two');
    tells probe($init, 'acquire=good', @ask), { status => 0, value => [1, 2] }, 'is run';
    terminate(backend_pids('good'));
    tells probe($init, 'acquire=good', @ask), { status => 0, value => [1, 2] },
        '... on each new connection';
    tells probe($init, 'acquire=many', 'sql=SHOW app.one'), { status => 0, value => 3 },
        'may be several statements';

    my @case = (
        [bad    => qr/column "nothing_here" does not exist/, 'fails'],
        [open   => qr/transaction/,                          'leaves a transaction open'],
        [hides  => qr/must stand in a directive of its own/, 'prepares after another statement'],
        [copies => qr/COPY|copy/,                            'begins a COPY'],
        [dies   => qr/terminating connection/,               'ends the connection'],
        [late   => qr/PgPoolConnectTimeout/,                 'takes too long'],
    );
    for (@case) {
        my ($pool, $cause, $name) = @$_;
        my $from = $init->log_end;
        tells probe($init, "acquire=$pool"), { status => 'EUNAVAIL' }, "it $name: EUNAVAIL";
        ok $init->wait_log(qr/PGP1002: pool $pool: cannot connect: .*$cause/, from => $from),
            '... the log says why';
    }
    $init->stop;
};

# ---- idle time and lifetime

sub closed {
    my ($aged, $pool, $reason) = @_;
    return scalar(() = $aged->error_log =~ /PGP1003: pool $pool, .*closed \($reason\)/g);
}

subtest 'age' => sub {
    my $aged = probed(join "\n", 'PgPoolAcquireTimeout 60s', 'PgPoolMin 2', 'PgPoolMax 6',
        in_pool('idle', 'PgPoolIdleTimeout 500ms'),
        in_pool('spare', 'PgPoolIdleTimeout 500ms', 'PgPoolMin 0'),
        in_pool('old', 'PgPoolMaxLifetime 500ms'),
        in_pool('ageless', 'PgPoolIdleTimeout 0', 'PgPoolMaxLifetime 0'));
    fill($aged, 6, $_) for qw(idle spare ageless);
    ok poll_until { backends($pg, 'spare') == 0 }, 'idle too long: closed';
    ok poll_until { backends($pg, 'idle') == 2 }, '... but PgPoolMin stay';
    ok poll_until { closed($aged, 'spare', 'idle') == 6 }, '... for that reason';
    ok poll_until { closed($aged, 'idle', 'idle') == 4 }, '... for that reason';

    my ($first) = fill($aged, 1, 'old');
    ok poll_until { !grep { $_ == $first } backend_pids('old') }, 'too old: closed';
    ok poll_until { backends($pg, 'old') == 2 }, '... and replaced down to PgPoolMin';
    ok poll_until { closed($aged, 'old', 'lifetime') >= 1 }, '... for that reason';

    my $held = hold($aged, qw(acquire=old gate again));
    my $before = closed($aged, 'old', 'lifetime');
    ok poll_until { closed($aged, 'old', 'lifetime') > $before + 2 }, 'other connections expire';
    tells let_go($held), { again => 0, same => 1 }, '... one in use stays';

    is backends($pg, 'ageless'), 6, '0: never closed';
    is closed($aged, 'ageless', 'idle') + closed($aged, 'ageless', 'lifetime'), 0, '... by any age';
    $aged->stop;
};

done_testing;
