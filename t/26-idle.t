#!/usr/bin/perl

# The server sends to connections that nobody has: the pool reads and drops it, so that no backend
# waits for us in the middle of a transaction of its own.

use PgPoolTest;
use Probe;

my $pg = postgres;
my $conninfo = conninfo($pg, application_name => 'idle');

# Notifications of 8 kB each, all different, in one transaction.
sub flood {
    my ($n) = @_;
    query($pg, "SELECT count(pg_notify('gossip', repeat('x', 7900) || i)) FROM generate_series(1, $n) i");
    return;
}

# Backends in the middle of something: they wait for room in their sockets.
sub stuck {
    return query($pg, q(SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'idle' AND (wait_event = 'ClientWrite' OR xact_start IS NOT NULL)));
}

# They have heard of it and are through with it.
sub all_through {
    my ($name) = @_;
    my $quiet = 0;
    return ok poll_until { $quiet = stuck() == 0 ? $quiet + 1 : 0; $quiet >= 5 }, $name;
}

sub pids {
    return [split /\n/, query($pg, q(SELECT pid FROM pg_stat_activity WHERE application_name = 'idle' ORDER BY 1))];
}

for my $mpm (mpms()) {
    subtest $mpm => sub {
        my $httpd = probed(<<"CONF", mpm => $mpm, threads => $mpm eq 'prefork' ? 1 : 4);
PgPoolConninfo "$conninfo"
PgPoolMin 3
PgPoolInitSQL "LISTEN gossip"
CONF
        # Never more than there are threads.
        my $open = $mpm eq 'prefork' ? 1 : 3;
        ok poll_until { @{ pids() } == $open }, 'connections are made';
        my $used = told(probe($httpd, 'acquire', 'sql=SELECT 1'), 'pid');
        my $before = pids();
        ok scalar(grep { $_ == $used } @$before), 'one has been used';

        # More than a socket takes.
        flood(130);
        all_through('nobody waits after a flood');
        is_deeply pids(), $before, '... they are the same ones';
        tells probe($httpd, 'acquire', 'notifies', 'sql=SELECT 42', 'state'),
            { status => 0, notifies => 0, value => 42, tx => 'IDLE', nonblocking => 0 },
            '... and nothing of it is left';

        # More than is read at once.
        flood(130) for 1 .. 3;
        flood(3000);
        all_through('nobody waits after a greater one');
        ok poll_until { @{ pids() } == $open }, '... as many connections are open as before';
        tells probe($httpd, 'acquire', 'notifies', 'sql=SELECT 42'), { status => 0, value => 42 }, '... and serve';
        $httpd->stop;
    };
}

# A notification that comes before a reset's answer was collected stands behind that answer.
subtest 'a reset that fails' => sub {
    query($pg, 'CREATE TABLE once (pid int PRIMARY KEY)');
    my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolMin 1
PgPoolMax 1
PgPoolInitSQL "INSERT INTO once VALUES (pg_backend_pid())"
CONF
    my $pid = told(probe($httpd, 'acquire', 'sql=SELECT pg_advisory_lock(1)'), 'pid');
    $httpd->wait_log(qr/PGP1006: pool default, backend $pid: found unfit while idle \(unclean\): duplicate key/);
    $httpd->wait_log(qr/PGP1003: pool default, backend $pid: closed \(unclean\)/);
    pass 'is found before anybody asks';
    ok poll_until { query($pg, q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')) == 0 },
        '... and what it should have released is released';
    $httpd->stop;
};

done_testing;
