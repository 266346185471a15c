#!/usr/bin/perl

# A request leaves a statement running: its backend stops working, the connection is used again if
# possible, other requests do not notice, and a server that does not answer costs one connection.

use PgPoolTest;
use POSIX qw(SIGINT);
use Probe;

my $pg = postgres;
query($pg, $_) for 'CREATE TABLE kept (t text)', 'CREATE TABLE slow (t text)',
    q(CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$),
    'CREATE TRIGGER sleep BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION sleep()',
    'CREATE TABLE stubborn (t text)',
    q(CREATE FUNCTION sleep_again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600);
        EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(600); RETURN NEW; END $$),
    'CREATE TRIGGER sleep BEFORE INSERT ON stubborn FOR EACH ROW EXECUTE FUNCTION sleep_again()';

my $conninfo = conninfo($pg);
my $httpd = probed(<<"CONF", threads => 16);
PgPoolConninfo "$conninfo"
PgPoolMax 1
PgPoolAcquireTimeout 60s
PgPoolCheckTimeout 60s
PgPoolReset session
<PgPool transaction>
  PgPoolReset transaction
</PgPool>
<PgPool strict>
  PgPoolMax 2
  PgPoolCheckTimeout 500ms
</PgPool>
<PgPool empty>
  PgPoolConninfo "$conninfo application_name=empty"
  PgPoolMin 0
</PgPool>
<PgPool default>
</PgPool>
CONF

my $sleep  = 'SELECT pg_sleep(600)';
my $insert = q(INSERT INTO kept VALUES ('lost'));
# More than any socket's buffer takes.
my $large  = 'SELECT repeat(chr(65 + i % 26), 1000) FROM generate_series(1, 1000000) i';

# Statements that a request leaves.  Each keeps the backend at work, running, waiting, or sending
# data that nobody reads, until it is cancelled.
my @working = (
    ['a statement'             => "send=$sleep"],
    ['... in a transaction'    => 'sql=BEGIN', "sql=$insert", "send=$sleep"],
    ['... with an implicit one' => "send=$insert; $sleep"],
    ['... in nonblocking mode' => 'nonblocking', "send=$sleep"],
    ['several'                 => "send=$sleep; $sleep; $sleep"],
    ['a large result'          => "send=$large"],
    ['... read in part'        => "single=$large"],
    ['a procedure'             => 'send=DO $$ BEGIN FOR i IN 1..600 LOOP PERFORM pg_sleep(1); END LOOP; END $$'],
    ['a COPY OUT'              => "copyout=COPY ($large) TO STDOUT"],
    ['... in a transaction'    => 'sql=BEGIN', "sql=$insert", "copyout=COPY ($large) TO STDOUT"],
    ['a COPY IN of much'       => 'flood=COPY slow FROM STDIN'],
    ['... in a transaction'    => 'sql=BEGIN', "sql=$insert", 'flood=COPY slow FROM STDIN'],
    ['... in nonblocking mode' => 'nonblocking', 'flood=COPY slow FROM STDIN'],
    ['... that defies one cancel' => 'flood=COPY stubborn FROM STDIN'],
    ['a pipeline'              => "pipeline=$sleep", 'sync'],
    ['... of several'          => "pipeline=$sleep", "queue=$sleep", 'sync'],
    ['... with syncs'          => "pipeline=$sleep", 'sync', "queue=$sleep", 'sync', "queue=$sleep", 'sync'],
    ['... read in part'        => 'pipeline=SELECT 1', 'sync', "queue=$sleep", 'sync', 'result'],
    ['... with a large result' => "pipeline=$large", 'sync', "queue=$sleep", 'sync'],
    ['... after an error'      => 'pipeline=SELECT 1/0', "queue=$insert", 'sync', "queue=$sleep", 'sync'],
    ['... in a transaction'    => 'sql=BEGIN', "sql=$insert", "pipeline=$sleep", 'sync'],
);

# These wait for their borrower, which does not come back.  Some need a sync before the server
# answers.
my @waiting = (
    ['a COPY IN'               => 'copyin=COPY kept FROM STDIN'],
    ['a pipeline, no sync'     => "pipeline=$insert", "queue=$insert"],
    ['... after a sync'        => 'pipeline=SELECT 1', 'sync', "queue=$insert"],
    ['... after an error'      => 'pipeline=SELECT 1/0', 'sync', 'queue=SELECT 1/0'],
    ['... aborted'             => 'pipeline=SELECT 1/0', 'queue=SELECT 1', 'sync', 'result'],
    ['... that is read'        => 'pipeline=SELECT 1', 'sync', 'result', 'result', 'result'],
    ['... and left empty'      => 'pipeline'],
    ['results of all kinds'    => 'send=SELECT 1; SELECT 1 WHERE false; SHOW work_mem; SELECT 1/0'],
);

# ---- one connection

sub state_of {
    my ($pid) = @_;
    return query($pg, "SELECT state FROM pg_stat_activity WHERE pid = $pid");
}

sub becomes {
    my ($pid, $state, $name) = @_;
    return ok poll_until { state_of($pid) eq $state }, $name;
}

# The backend of a pool, as a request of its own sees it.
sub backend {
    my ($pool) = @_;
    return told(probe($httpd, "acquire=$pool"), 'pid') // die "no backend\n";
}

sub next_is_served {
    my ($pool, $pid) = @_;
    my $answer = probe($httpd, "acquire=$pool", 'state', 'sql=SELECT 42', q(sql=INSERT INTO kept VALUES ('kept')));
    tells $answer, { status => 0, pid => $pid, tx => 'IDLE', pipeline => 0, busy => 0, value => 42,
        result => [qw(PGRES_TUPLES_OK PGRES_COMMAND_OK)] }, '... the next has the same connection';
    is query($pg, 'DELETE FROM kept RETURNING t'), 'kept', '... no row of the former request is written';
    return;
}

for my $pool (qw(default transaction)) {
    subtest "statements that run on, $pool" => sub {
        for (@working) {
            my ($name, @command) = @$_;
            my $pid = backend($pool);
            my $held = hold($httpd, "acquire=$pool", @command, 'gate');
            becomes($pid, 'active', "$name is at work");
            let_go($held);
            becomes($pid, 'idle', '... and stops when its request has ended');
            next_is_served($pool, $pid);
        }
    };
    subtest "a backend that waits, $pool" => sub {
        for (@waiting) {
            my ($name, @command) = @$_;
            my $pid = backend($pool);
            probe($httpd, "acquire=$pool", @command);
            becomes($pid, 'idle', "$name: its backend becomes idle");
            next_is_served($pool, $pid);
        }
    };
}

# ---- a pipeline whose results were requested without a sync, so that its transaction is still open

subtest 'a pipeline without a sync, its results read' => sub {
    for my $pool (qw(default transaction)) {
        for (['' => ()], [', and left' => 'leave']) {
            my ($name, @then) = @$_;
            for my $sql ($insert, 'SELECT 1/0') {
                probe($httpd, "acquire=$pool", "pipeline=$sql", qw(request result result), @then);
                next_is_served($pool, backend($pool));
            }
            pass "$pool$name";
        }
        my $pid = backend($pool);
        my $answer = probe($httpd, "acquire=$pool", 'pipeline=SELECT 1', qw(sync result result result leave));
        tells $answer, { left => 1, pid => $pid }, "$pool: one with a sync";
        is backend($pool), $pid, '... keeps its connection';
    }
};

# ---- notifications for one borrower do not reach another

# How often that backend has gone to sleep; undef while it is awake.
sub naps {
    my ($pid) = @_;
    my $status = Httpd::slurp("/proc/$pid/status");
    return $status =~ /^State:\s*S/m && $status =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : undef;
}

# Send notifications, and wait until the listening backend has passed them on: it wakes up, writes,
# sleeps.
sub gossip {
    my ($pid) = @_;
    my $naps = poll_until { naps($pid) };
    query($pg, q(SELECT pg_notify('gossip', i::text) FROM generate_series(1, 100) i));
    return poll_until { (naps($pid) // 0) > $naps } || die "backend $pid has not heard\n";
}

# The first statement of the next request reads all notifications that have come.
sub nobody_elses {
    my ($pool, $pid, $name) = @_;
    return tells probe($httpd, "acquire=$pool", 'sql=SELECT 1', 'notifies'), { pid => $pid, notifies => 0 }, $name;
}

subtest 'notifications' => sub {
    for my $pool (qw(default transaction)) {
        my $pid = backend($pool);
        for (['a notification that came' => ()], ['... and was read' => 'sql=SELECT 1']) {
            my ($name, @command) = @$_;
            my $held = hold($httpd, "acquire=$pool", 'sql=LISTEN gossip', 'gate', @command);
            gossip($pid);
            let_go($held);
            nobody_elses($pool, $pid, "$pool: $name before the return is dropped");
        }
    }
    my $pid = backend('transaction');
    gossip($pid);
    nobody_elses('transaction', $pid, 'so is one that came while the connection was idle');
    my $within = hold($httpd, 'acquire=transaction', 'sql=BEGIN', 'gate');
    gossip($pid);
    let_go($within);
    becomes($pid, 'idle', '... and one that the server kept back');
    nobody_elses('transaction', $pid, '... until the transaction was ended');
    my $held = hold($httpd, 'acquire=transaction', 'sql=LISTEN gossip', 'gate', 'sql=SELECT 1', 'notifies');
    gossip($pid);
    tells let_go($held), { notifies => 100 }, 'a borrower that listens gets its notifications';
};

# ---- a server that does not answer

# SQL about all backends that are at work.
sub busy {
    my ($what) = @_;
    return "SELECT $what FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()";
}

sub others_are_served {
    my ($name) = @_;
    my @answer = map { probe($httpd, 'acquire=strict', 'sql=SELECT 42') } 1 .. 20;
    is_deeply [map { told($_, 'value') } @answer], [(42) x 20], "$name: others are served";
    kill_backends($pg, 'empty');
    ok poll_until { backends($pg, 'empty') == 0 }, '... on open connections';
    is told(probe($httpd, 'acquire=empty', 'sql=SELECT 42'), 'value'), 42, '... and on new ones';
    return;
}

# A backend that is stopped (SIGSTOP) neither answers nor reads.
for (['a statement' => "send=$sleep"], ['a COPY OUT' => "copyout=COPY ($large) TO STDOUT"],
    ['a COPY IN of much' => 'flood=COPY slow FROM STDIN'], ['a pipeline' => "pipeline=$sleep", 'sync'],
    ['a transaction' => 'sql=BEGIN']) {
    my ($name, @command) = @$_;
    subtest "$name, and the backend does not answer" => sub {
        my $from = $httpd->log_end;
        my $held = hold($httpd, 'acquire=strict', @command, 'gate', 'pid');
        my $pid = poll_until { query($pg, busy('pid')) };
        kill STOP => $pid or die "stop $pid: $!";
        let_go($held);
        others_are_served($name);
        $httpd->wait_log(qr/pool strict, backend $pid: could not be cleaned up: /, from => $from);
        $httpd->wait_log(qr/pool strict, backend $pid: closed \(unclean\)/, from => $from);
        kill CONT => $pid;
        ok poll_until { state_of($pid) eq '' }, '... it ends when it goes on';
        others_are_served('afterwards');
    };
}

# libpq reports that no statement runs, but its buffer has bytes that the backend does not read.
subtest 'a pipeline of nothing, and the backend does not read it' => sub {
    my $from = $httpd->log_end;
    my $pid = backend('strict');
    my $held = hold($httpd, 'acquire=strict', 'gate', 'pipeline', 'flushes', 'state');
    kill STOP => $pid or die "stop $pid: $!";
    my $answer = let_go($held);
    my $closed = poll_until { $httpd->error_log($from) =~ /pool strict, backend $pid: closed \(unclean\)/ };
    kill CONT => $pid;
    tells $answer, { pid => $pid, pipeline => [1, 1], tx => 'IDLE', nonblocking => 0 }, 'its request ends';
    ok $closed, '... and the connection is closed without the backend';
    others_are_served('afterwards');
};

# A cancel has no effect if the backend is idle because the statement is still on its way; so the
# pool sends another one.  A stopped backend makes the two arrive in that order.
subtest 'a cancel that comes before its statement' => sub {
    my $pid = backend('default');
    my $held = hold($httpd, qw(acquire gate), "send=$sleep");
    kill STOP => $pid or die "stop $pid: $!";
    let_go($held);
    ok poll_until { hex((Httpd::slurp("/proc/$pid/status") =~ /^ShdPnd:\s*(\w+)/m)[0]) & 1 << (SIGINT - 1) },
        'the cancel waits for the backend';
    kill CONT => $pid;
    next_is_served('default', $pid);
};

subtest 'a statement that catches the first cancel' => sub {
    my $stubborn = "DO \$\$ BEGIN PERFORM pg_sleep(600);
        EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(600); END \$\$";
    my $pid = told(probe($httpd, 'acquire=strict', "send=$stubborn"), 'pid');
    ok poll_until { state_of($pid) ne 'active' }, 'is cancelled again';
    others_are_served('afterwards');
};

ok poll_until { query($pg, busy('count(*)')) == 0 }, 'no backend is at work';
done_testing;
