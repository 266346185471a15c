#!/usr/bin/perl

# A request may leave its connection in any state: the next request finds a connection in good
# order, and nothing stays that was not committed.

use PgPoolTest;
use Probe;
use IO::Select;

my $pg = postgres;
query($pg, 'CREATE TABLE kept (who text)');
my $conninfo = conninfo($pg);

# PgPoolMax is 1, so that the next request gets the connection that this one has left.  The
# deadlines are far away: a clean-up has to work without them.
my $conf = <<"CONF";
PgPoolConninfo "$conninfo"
PgPoolMax 1
PgPoolAcquireTimeout 60s
PgPoolCheckTimeout 60s
<PgPool two>
  PgPoolMax 2
  PgPoolCheckTimeout 1h
</PgPool>
<PgPool strict>
  PgPoolCheckTimeout 300ms
</PgPool>
CONF

my $insert = q(INSERT INTO kept VALUES ('lost'));
my $large  = 'SELECT repeat(chr(65 + i % 26), 1000) FROM generate_series(1, 20000) i';
my $cursor = 'DECLARE c CURSOR FOR SELECT 1';
my $sleep  = 'SELECT pg_sleep(600)';
my $die    = 'SELECT pg_terminate_backend(pg_backend_pid())';

# States that the pool cleans up; the commands that leave them, after `acquire` unless they begin
# with `open`.
my @mended = (
    ['nothing'                       => 'sql=SELECT 1'],
    ['an open transaction'           => 'sql=BEGIN', "sql=$insert"],
    ['... released'                  => 'sql=BEGIN', "sql=$insert", 'release'],
    ['... of open, closed'           => 'open', 'sql=BEGIN', "sql=$insert", 'close'],
    ['... of open, left'             => 'open', 'sql=BEGIN', "sql=$insert"],
    ['... with a savepoint'          => 'sql=BEGIN', 'sql=SAVEPOINT a', "sql=$insert"],
    ['... with a cursor'             => 'sql=BEGIN', "sql=$insert", "sql=$cursor"],
    ['... that locks a table'        => 'sql=BEGIN', "sql=$insert", 'sql=LOCK TABLE kept'],
    ['a failed transaction'          => 'sql=BEGIN', "sql=$insert", 'sql=SELECT 1/0'],
    ['a failed statement'            => 'sql=SELECT 1/0'],
    ['nonblocking mode'              => 'nonblocking'],
    ['... in a transaction'          => 'sql=BEGIN', "sql=$insert", 'nonblocking'],
    ['a notice processor'            => 'notice'],
    ['a trace'                       => 'trace', 'sql=SELECT 1'],
    ['pipeline mode'                 => 'pipeline'],
    ['... with a statement'          => 'pipeline=SELECT 1'],
    ['... that fails'                => 'pipeline=SELECT 1/0'],
    ['... without the sync it needs' => "pipeline=$insert"],
    ['... in a transaction'          => 'sql=BEGIN', "sql=$insert", 'pipeline=SELECT 1'],
    ['an unread result'              => 'send=SELECT 1'],
    ['... large'                     => "send=$large"],
    ['... of several'                => 'send=SELECT 1; SELECT 2; SELECT 1/0'],
    ['a result row by row'           => "single=$large"],
    ['a COPY IN'                     => 'copyin=COPY kept FROM STDIN'],
    ['... in a transaction'          => 'sql=BEGIN', "sql=$insert", 'copyin=COPY kept FROM STDIN'],
    ['a COPY OUT'                    => "copyout=COPY ($large) TO STDOUT"],
    ['a running statement'           => "send=$sleep"],
    ['... in a transaction'          => 'sql=BEGIN', "sql=$insert", "send=$sleep"],
    ['all at once'                   => 'sql=BEGIN', "sql=$insert",
        qw(notice trace nonblocking), "pipeline=$sleep"],
);

# States after which the connection is replaced.
my @replaced = (
    ['a dead connection'    => "sql=$die"],
    ['... unknown to libpq' => "send=$die"],
);

# The next request.  Its notice would call a notice processor that was left behind.  The last
# statement counts other backends that are at work.
my @next = ('acquire', 'state', q(sql=INSERT INTO kept VALUES ('next')),
    q(sql=DO $$ BEGIN RAISE NOTICE 'x'; END $$),
    q(sql=SELECT count(*) FROM pg_stat_activity
       WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()));

my %in_good_order = (
    status => 0, conn => 'OK', tx => 'IDLE', pipeline => 0, nonblocking => 0, busy => 0,
    processor => 'other', result => [qw(PGRES_COMMAND_OK PGRES_COMMAND_OK PGRES_TUPLES_OK)],
    value => 0,
);

# Test the next request.  Returns its backend.
sub next_is_well {
    my ($httpd, $name) = @_;
    my $answer = probe($httpd, @next);
    tells $answer, \%in_good_order, "$name: the next has it in good order";
    is query($pg, 'DELETE FROM kept RETURNING who'), 'next', '... nothing else was written';
    return told($answer, 'pid') // 'none';
}

sub leave {
    my ($httpd, @command) = @_;
    unshift @command, 'acquire' if $command[0] ne 'open';
    my $answer = probe($httpd, @command);
    is told($answer, 'status'), 0, "$command[-1] is done" or diag $answer->{content};
    return told($answer, 'pid') // 'none';
}

# The request ends only after its backend has gone: otherwise the clean-up might cancel the
# statement that ends the backend.
sub leave_dead {
    my ($httpd, @command) = @_;
    my $before = backends($pg);
    my $held = hold($httpd, 'acquire', @command, 'gate');
    ok poll_until { backends($pg) < $before }, "$command[-1] is done";
    my ($answer) = let_go($held);
    return told($answer, 'pid') // 'none';
}

sub left_behind {
    my ($httpd) = @_;
    for (@mended) {
        my ($name, @command) = @$_;
        my $pid = leave($httpd, @command);
        is next_is_well($httpd, $name), $pid, '... the same connection';
    }
    for (@replaced) {
        my ($name, @command) = @$_;
        my $pid = leave_dead($httpd, @command);
        isnt next_is_well($httpd, $name), $pid, '... another connection';
    }
    return;
}

# ---- a client that does not wait for its answer

sub client_gone {
    my ($httpd) = @_;
    my $held = hold($httpd, 'acquire', 'sql=BEGIN', "sql=$insert", 'gate', 'sql=SELECT 1');
    $held->{pending}->abandon;
    Probe::open_gate($held);
    next_is_well($httpd, 'the client has gone meanwhile');

    my $pending = $httpd->begin(probe_at('acquire', 'write=100000000'), rcvbuf => 4096);
    ok(IO::Select->new($pending->{socket})->can_read(60), 'an answer begins');
    $pending->abandon;
    next_is_well($httpd, 'the client has gone in the middle of its answer');

    probe($httpd, 'acquire', 'sql=BEGIN', "sql=$insert", 'abort');
    next_is_well($httpd, 'the handler noticed that');
    return;
}

sub client_gone_from_the_queue {
    my ($httpd) = @_;
    my $held = hold($httpd, 'acquire');
    my @waiting = map { $httpd->begin(probe_at(@next)) } 1 .. 2;
    $_->abandon for @waiting;
    let_go($held);
    ok poll_until { query($pg, 'SELECT count(*) FROM kept') == 2 }, 'requests of clients that have gone still run';
    query($pg, 'DELETE FROM kept');
    next_is_well($httpd, 'after them');
    return;
}

for my $mpm (mpms()) {
    subtest $mpm => sub {
        my $httpd = probed($conf, mpm => $mpm, threads => $mpm eq 'prefork' ? 1 : 4);
        # A pool's first connection asks the server for its capacity: that backend is at work.
        $httpd->wait_log(qr/PGP1001: pool $_,/) for qw(default two strict);
        left_behind($httpd);
        client_gone($httpd);
        client_gone_from_the_queue($httpd) if $mpm ne 'prefork';
        $httpd->stop;
    };
}

# ---- notices of the server

my $raise = q(sql=DO $$ BEGIN RAISE NOTICE 'by the way'; END $$);

subtest 'notices' => sub {
    my $httpd = probed($conf);
    my $from = $httpd->log_end;
    probe($httpd, 'acquire', $raise);
    $httpd->wait_log(qr/PGP1010: pool default: the server says: NOTICE:  by the way/, from => $from);
    pass 'stand in the log';
    $from = $httpd->log_end;
    tells probe($httpd, 'acquire', 'notice', $raise, $raise, 'noticed'), { noticed => 2 },
        '... or go to a notice processor of the handler';
    unlike $httpd->error_log($from), qr/PGP1010/, '... and not into the log';

    tells probe($httpd, 'acquire', 'swap', $raise, 'sql=SELECT 42'), { swapped => 1, value => 42 },
        'a handler that has restored the old processor gets none';

    my $held = hold($httpd, 'acquire', 'keep=SELECT 1', 'release', 'gate', 'misuse');
    kill_backends($pg);
    $httpd->wait_log(qr/PGP1003: pool default, backend \d+: closed \(lost\)/, from => $from);
    tells let_go($held), { misused => 1 }, 'a result that has outlived its connection is misused';
    like $httpd->error_log($from), qr/PGP1010: pool default: .* row number 99 is out of range/, '... which the log shows';
    $httpd->stop;
};

# ---- a backend that does not answer: no request waits for the clean-up

my $httpd = probed($conf);

# A request leaves an open transaction in a backend that is stopped (SIGSTOP).  Returns the backend.
sub leave_stuck {
    my ($pool) = @_;
    my $held = hold($httpd, "acquire=$pool", 'sql=BEGIN', "sql=$insert", 'gate');
    my $pid = query($pg, q(SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'));
    kill STOP => $pid or die "kill: $!";
    is told(let_go($held), 'pid'), $pid, 'its request ends';
    return $pid;
}

subtest 'a backend that goes on later' => sub {
    my $pid = leave_stuck('two');
    my $answer = probe($httpd, 'acquire=two', "sql=$insert");
    tells $answer, { status => 0 }, 'the next request is served';
    isnt told($answer, 'pid'), $pid, '... by another backend';
    kill CONT => $pid;
    my @held = map { hold($httpd, 'acquire=two') } 1 .. 2;
    my %pids = map { told($_, 'pid') => 1 } let_go(@held);
    ok $pids{$pid}, 'it comes back into use';
    is query($pg, 'DELETE FROM kept RETURNING who'), 'lost', '... and its insert is undone';
};

subtest 'a backend that does not go on' => sub {
    my $pid = leave_stuck('strict');
    my $answer = probe($httpd, 'acquire=strict');
    tells $answer, { status => 0 }, 'the next request is served, although PgPoolMax is 1';
    isnt told($answer, 'pid'), $pid, '... by another backend';
    ok $httpd->wait_log(qr/PGP1003: pool strict, backend $pid: closed \(unclean\)/),
        '... after PgPoolCheckTimeout';
    kill CONT => $pid;
    ok poll_until { !kill 0, $pid }, 'the old backend sees that its connection was closed';
    is query($pg, 'SELECT count(*) FROM kept'), 0, '... and its insert is undone';
};
$httpd->stop;

done_testing;
