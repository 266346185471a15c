package Children;

# What it costs that several children share the connections and show their figures.

use strict;
use warnings;

use Bench;
use JSON::PP;
use List::Util qw(first max);
use PgPoolTest;
use POSIX ();
use Time::HiRes qw(sleep);

my $seconds = 8;
my $clients = 64;

# ---- one child, several children, and several that come and go

sub children {
    title("$clients clients, 10 connections, 20 ms each", 'p50 ms', 'p99 ms', 'max ms', 'failed', 'most open');
    waits('one child', 1, 'PgPoolMax 10', \&stay);
    waits('4 children, PgPoolTotalMax 10', 4, "PgPoolMax 32\nPgPoolTotalMax 10", \&stay);
    waits('... restarted each second, killed each third', 4, "PgPoolMax 32\nPgPoolTotalMax 10", \&come_and_go);
    return;
}

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

# Each child has threads for all clients: whoever waits does so for a connection.
sub waits {
    my ($name, $children, $conf, $work) = @_;
    my $httpd = waiting_httpd($children, $conf);
    my $load = $httpd->load('/wait', clients => $clients, keep_alive => 1);
    sleep 2; # until the parts are even
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

# The most connections that the server has seen while the work was done.
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

# Pools that are new since the start have no place in the shared memory when there are too many: the
# only way to have one without.  Returns the name of one.
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
