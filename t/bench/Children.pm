package Children;

# The cost of sharing: several children share the connections, and publish their figures.

use strict;
use warnings;

use Bench;
use Bouncer;
use JSON::PP;
use List::Util qw(first max);
use PgPoolTest;
use POSIX ();
use Time::HiRes qw(sleep);
use Wrk;

my $seconds = 8;
my $clients = 64;

# ---- one child, several children, and several that come and go

sub children {
    title("$clients clients, 10 connections, 20 ms each", 'p50 ms', 'p99 ms', 'max ms', 'failed', 'most open');
    waits('one child', 1, 'PgPoolMax 10', \&stay);
    waits('4 children, PgPoolTotalMax 10', 4, "PgPoolMax 32\nPgPoolTotalMax 10", \&stay);
    waits('... restarted each second, killed each third', 4, "PgPoolMax 32\nPgPoolTotalMax 10", \&come_and_go);
    many();
    return;
}

# ---- more children than connections

# Each row: its name, the ideal wait (clients / connections * time of a query, less that time), the
# query, and the load.  "most open" and "connects/s" are counts of the server.
sub many {
    my @prefork = (mpm => 'prefork', children => 1);
    my $ten = 'SELECT 1 FROM pg_sleep(0.01)';
    my $fifty = 'SELECT 1 FROM pg_sleep(0.05)';
    title('more busy children than connections', 'ideal ms', 'p50 ms', 'p99 ms', 'max ms', 'requests/s', 'failed', 'cut', 'most open', 'connects/s');
    many_of('prefork 150, TotalMax 80, 150 clients, 10 ms', 19, $ten, 150, 80, @prefork, threads => 150);
    many_of('... one child killed a second, a restart each two', 19, $ten, 150, 80, @prefork, threads => 150, chaos => 1);
    many_of('... through PgBouncer', 19, $ten, 150, 80, @prefork, threads => 150, bouncer => 1);
    many_of('... SELECT 1', '', 'SELECT 1', 150, 80, @prefork, threads => 150);
    many_of('... SELECT 1, PgPoolAcquireTimeout 5s', '', 'SELECT 1', 150, 80, @prefork, threads => 150, conf => 'PgPoolAcquireTimeout 5s');
    many_of('... SELECT 1, through PgBouncer', '', 'SELECT 1', 150, 80, @prefork, threads => 150, bouncer => 1);
    many_of('... SELECT 1, no cap', '', 'SELECT 1', 150, 0, @prefork, threads => 150);
    many_of('event 16x16, TotalMax 10, 160 clients, 10 ms', 160, $ten, 160, 10, children => 16, threads => 16);
    many_of('prefork 16, TotalMax 4, one client, SELECT 1', '< 1', 'SELECT 1', 1, 4, @prefork, threads => 16, keep_alive => 0);
    many_of('prefork 16, TotalMax 4, 16 clients, 50 ms', 200, $fifty, 16, 4, @prefork, threads => 16);
    many_of('event 8x8, TotalMax 8, 8 clients, 10 ms', 10, $ten, 8, 8, children => 8, threads => 8);
    many_of('worker 8x8, TotalMax 8, 8 clients, 10 ms', 10, $ten, 8, 8, children => 8, threads => 8, mpm => 'worker');
    return;
}

sub many_of {
    my ($name, $ideal, $sql, $clients, $total, %option) = @_;
    return if !is_wanted($name);
    my ($bouncer, $chaos) = delete @option{qw(bouncer chaos)};
    my $keep_alive = delete $option{keep_alive} // 1;
    my $conf = delete $option{conf} // '';
    my $over = $bouncer && Bouncer->new(server, 'transaction', default_pool_size => $total, max_client_conn => 1000);
    my $conninfo = $over ? $over->conninfo_local : conninfo(server);
    $conninfo .= ' application_name=children';
    my $reset = $over ? "PgPoolReset transaction\nPgPoolTotalMax 0\n" : "PgPoolTotalMax $total\n";
    my $httpd = httpd(<<"CONF", modules => [qw(pgpool pgpool_bench dbd)], %option);
LogLevel warn
KeepAlive @{[$keep_alive ? 'On' : 'Off']}
MaxKeepAliveRequests 0
PgPoolConninfo "$conninfo"
$reset
$conf
@{[location('go', 'bench-pgpool', qq(BenchSQL "$sql"))]}
CONF
    my $time = $ENV{BENCH_CHILDREN_SECONDS} // 8;
    Wrk::run($httpd->url('/go'), clients => $clients, seconds => 2, may_fail => 1);
    my $counter = most_seen_begin($time);
    my $made = sessions();
    my $load = sub { return Wrk::run($httpd->url('/go'), clients => $clients, seconds => $time, may_fail => 1) };
    my %got = %{ $chaos ? during($load, sub { kill_and_restart($httpd, $time - 1) }) : $load->() };
    $made = (sessions() - $made) / $time;
    my $most = most_seen_end($counter);
    $httpd->stop;
    $over->stop if $over;
    line($name, $ideal, map({ sprintf $_ < 20 ? '%.1f' : '%.0f', $_ } @got{qw(p50 p99 max rate)}),
        @got{qw(failed cut)}, $most, sprintf '%.0f', $made);
    return;
}

# Do some work during a load.  Returns the load's result.
sub during {
    my ($load, $work) = @_;
    my $pid = open(my $result, '-|') // die "fork: $!";
    if (!$pid) {
        print encode_json($load->());
        STDOUT->flush;
        POSIX::_exit(0);
    }
    $work->();
    return decode_json(do { local $/; <$result> });
}

sub kill_and_restart {
    my ($httpd, $seconds) = @_;
    my $end = now() + $seconds;
    for (my $n = 0; now() < $end; $n++) {
        $httpd->kill_child('KILL');
        $httpd->graceful if $n % 2;
        sleep 1;
    }
    return;
}

# A function in the server counts every 5 ms: queries from outside would cost more than the load.
sub most_seen_begin {
    my ($seconds) = @_;
    query(server, <<'SQL');
CREATE OR REPLACE FUNCTION most_seen(seconds float) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    most int := 0;
    until timestamptz := clock_timestamp() + seconds * interval '1 second';
BEGIN
    WHILE clock_timestamp() < until LOOP
        PERFORM pg_stat_clear_snapshot();
        most := greatest(most, (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'children'));
        PERFORM pg_sleep(0.005);
    END LOOP;
    RETURN most;
END $$
SQL
    open my $counter, '-|', 'psql', '-XAtq', '-d', server->connstr('postgres'), '-c', "SELECT most_seen($seconds)"
        or die "psql: $!";
    return $counter;
}

sub most_seen_end {
    my ($counter) = @_;
    chomp(my $most = <$counter>);
    close $counter or die "psql: exit $?\n";
    return $most;
}

# Sessions since the server's start, with those that have not ended.
sub sessions {
    return query(server, q{SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'});
}

# BENCH_ROW is a pattern: only rows with a matching name are measured.
sub is_wanted { my ($name) = @_; return !$ENV{BENCH_ROW} || $name =~ /$ENV{BENCH_ROW}/ }

sub stay { return sleep $seconds }

sub come_and_go {
    my ($httpd) = @_;
    my $end = now() + 2 * $seconds;
    for (my $n = 1; now() < $end; $n++) {
        $n % 3 ? $httpd->graceful : $httpd->kill_child;
        sleep 1;
        $httpd->wait_complete;
    }
    return;
}

# Each child has threads for all clients, so a request waits only for a connection.
sub waits {
    my ($name, $children, $conf, $work) = @_;
    return if !is_wanted($name);
    my $httpd = waiting_httpd($children, $conf);
    my $load = $httpd->load('/wait', clients => $clients, keep_alive => 1);
    sleep 2; # until the children share the connections evenly
    my $from = length waits_log($httpd);
    my $count = counted(sub { $work->($httpd) });
    my @wait = sort { $a <=> $b } map { $_ / 1000 } split /\n/, substr waits_log($httpd), $from;
    my $seen = $load->stop;
    $httpd->stop;
    my $failed = 0;
    $failed += $seen->{$_} for grep { $_ != 200 } keys %$seen;
    line($name, map({ sprintf '%.0f', $wait[$_ * $#wait] } 0.5, 0.99, 1), $failed, $count);
    return;
}

sub waiting_httpd {
    my ($children, $conf) = @_;
    my $conninfo = conninfo(server, application_name => 'children');
    return httpd(<<"CONF", modules => [qw(pgpool pgpool_query)], children => $children, threads => $clients);
LogLevel warn
MaxKeepAliveRequests 0
PgPoolConninfo "$conninfo"
PgPoolAcquireTimeout 20s
$conf
LogFormat "%{pgpool-default-wait}n" wait
CustomLog "\${DIR}/waits" wait expr=%{note:pgpool-default-wait}!=''
@{[location('wait', 'pgpool-query', 'PgPoolQuery "SELECT pg_sleep(0.02)"')]}
CONF
}

sub waits_log { my ($httpd) = @_; return Httpd::slurp($httpd->dir . '/waits') }

# Do some work.  Returns the greatest number of connections that the server had meanwhile.
sub counted {
    my ($work) = @_;
    my $done = 0;
    pipe my $result, my $write or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        local $SIG{TERM} = sub { $done = 1 };
        my $most = 0;
        $most = max($most, backends(server, 'children')) while !$done;
        print {$write} $most;
        close $write;
        POSIX::_exit(0);
    }
    close $write;
    $work->();
    kill TERM => $pid;
    my $most = <$result>;
    waitpid $pid, 0;
    return $most;
}

# ---- shared figures

# The name of a pool without a place in the shared memory.  There is one only if too many pools are
# new since the start of httpd.
sub unposted_pool {
    my ($httpd) = @_;
    my @name = map { "more$_" } 1 .. 40;
    my @pool = map { "<PgPool $_>\nPgPoolMin 0\n</PgPool>\n" } @name;
    $httpd->conf(join '', $httpd->{conf}, location('status', 'pgpool-status'), @pool);
    $httpd->graceful;
    my $there = decode_json($httpd->get('/status?json')->{content})->{pools};
    return first { !$there->{$_} } @name;
}

1;
