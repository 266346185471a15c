#!/usr/bin/perl

# The server sends data to idle connections.  The pool reads and drops it, so that no backend waits
# for the pool in the middle of a transaction of its own.

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

# How many of the pool's backends are in a transaction, or wait for room in their sockets.
sub stuck {
    return query($pg, q(SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'idle' AND (wait_event = 'ClientWrite' OR xact_start IS NOT NULL)));
}

# Wait until no backend is stuck any more, in five looks one after the other.
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
        # PgPoolMin, but never more than there are threads.
        my $open = $mpm eq 'prefork' ? 1 : 3;
        ok poll_until { @{ pids() } == $open }, 'connections are made';
        my $used = told(probe($httpd, 'acquire', 'sql=SELECT 1'), 'pid');
        my $before = pids();
        ok scalar(grep { $_ == $used } @$before), 'one has been used';

        # More than a socket takes.
        flood(130);
        all_through('no backend waits after a flood');
        is_deeply pids(), $before, '... the connections are the same';
        tells probe($httpd, 'acquire', 'notifies', 'sql=SELECT 42', 'state'),
            { status => 0, notifies => 0, value => 42, tx => 'IDLE', nonblocking => 0 },
            '... and nothing of the flood is left';

        # More than the pool reads at once.
        flood(130) for 1 .. 3;
        flood(3000);
        all_through('no backend waits after a greater flood');
        ok poll_until { @{ pids() } == $open }, '... as many connections are open as before';
        tells probe($httpd, 'acquire', 'notifies', 'sql=SELECT 42'), { status => 0, value => 42 }, '... and serve';
        $httpd->stop;
    };
}

# The pool collects the answer to a reset when it reads from the idle connection.
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
    pass 'is found before the next request';
    ok poll_until { query($pg, q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')) == 0 },
        '... and the lock is gone that the reset should have released';
    $httpd->stop;
};

done_testing;
