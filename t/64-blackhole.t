#!/usr/bin/perl

# A black hole in the network: packets vanish in both directions, and nothing is acknowledged.  (In
# t/64-network.t a proxy makes the hole, and its kernel still acknowledges data.)

# This test runs in a network namespace of its own, where an ordinary user may drop packets.
BEGIN {
    if (!$ENV{PGPOOL_OWN_NETWORK}) {
        my @own = qw(unshare --map-current-user --keep-caps --net env PGPOOL_OWN_NETWORK=1);
        my $why = qx{@own sh -c "ip link set lo up && nft list tables" 2>&1};
        exec @own, $^X, (map { "-I$_" } @INC), $0 if !$?;
        print '1..0 # SKIP no network of our own: ', $why =~ s/\s+/ /gr, "\n";
        exit 0;
    }
}

use PgPoolTest;
use Probe;
use List::Util qw(max);
use Time::HiRes qw(sleep);

# Seconds by which an answer may be late on a busy machine.
my $slack = 5;

run(qw(ip link set lo up));

# The server, too, has to notice clients that have gone.
my $pg = postgres(<<'CONF');
listen_addresses = '127.0.0.1'
tcp_keepalives_idle = 5
tcp_keepalives_interval = 1
tcp_keepalives_count = 5
client_connection_check_interval = 1s
CONF

my $conninfo = conninfo($pg, host => '127.0.0.1');
my $httpd = probed(<<"CONF", modules => ['pgpool_query'], threads => 16);
PgPoolConninfo "$conninfo"
PgPoolMin 4
PgPoolMax 6
PgPoolConnectTimeout 2s
PgPoolRetry 100ms 1s
<Location /rows>
  SetHandler pgpool-query
  PgPoolQuery "SELECT 1 AS one"
</Location>
CONF

sub run { system(@_) == 0 or die "@_\n"; return }

sub open_hole {
    run(qw(nft add table ip hole));
    run('nft', 'add chain ip hole in { type filter hook input priority 0; }');
    run(qw(nft add rule ip hole in tcp), $_, $pg->port, 'drop') for qw(dport sport);
    return;
}

sub close_hole { run(qw(nft delete table ip hole)); return }

sub threads { return scalar(() = map { glob "/proc/$_/task/*" } $httpd->children) }

sub served { return $httpd->get('/rows')->{status} == 200 }

# Test that nothing is left of the hole, neither at the server nor in httpd.
sub all_well {
    my ($threads) = @_;
    my @held = map { hold($httpd, qw(acquire gate), 'sql=SELECT 1') } 1 .. 6;
    ok poll_until { backends($pg) == 6 }, "the server has the pool's connections, and no others";
    is_deeply [map { told($_, 'value') } let_go(@held)], [(1) x 6], 'all connections can be lent at once';
    ok poll_until { threads() <= $threads }, 'no thread is stuck';
    return;
}

ok poll_until { served() && backends($pg) == 4 }, 'it serves';
my $threads = threads();

subtest 'ten seconds under load' => sub {
    my $from = $httpd->log_end;
    my $load = $httpd->load('/rows', clients => 8, record => 1, pause => 0.01);
    $httpd->wait_log(qr/PGP1004/, from => $from);
    open_hole();
    sleep 10;
    close_hole();
    ok poll_until { served() }, 'it heals by itself';
    my $healed = now();
    sleep 1;    # of load, to see that it stays so
    my @answer = $load->finish;
    my @refused = map { $_ / 1000 } $httpd->error_log($from) =~ /PGP1011: .*waited (\d+) ms/g;
    cmp_ok max(@refused), '<', 2 + $slack, 'every acquire ended by its deadline';
    my @late = grep { $_->{seconds} > 2 + $slack } @answer;
    cmp_ok @late, '<=', 6, 'at most the requests whose query was under way are late';
    is_deeply [grep { $_->{status} != 200 && $_->{began} > $healed } @answer], [], 'nothing fails once it has healed';
    note sprintf 'longest acquire %.3f s, longest answer %.3f s', max(@refused), max(map { $_->{seconds} } @answer);
    all_well($threads);
};

# Of two requests one waits for an answer already, and the other is about to send a query.
subtest 'the kernel ends the wait for an answer' => sub {
    my $sleep = 'SELECT pg_sleep(600)';
    my $asleep = "SELECT count(*) FROM pg_stat_activity WHERE query = '$sleep'";
    my @lost = (start_probe($httpd, 'acquire', "sql=$sleep", 'again'), hold($httpd, qw(acquire gate), 'sql=SELECT 1', 'again'));
    ok poll_until { query($pg, $asleep) == 1 }, 'one request waits';
    my $began = now();
    open_hole();
    my @answer = let_go(@lost);
    my $took = now() - $began;
    tells $_, { result => 'PGRES_FATAL_ERROR', again => 'ELOST' }, 'both get ELOST' for @answer;
    # tcp_user_timeout, and up to two keepalives_interval until the kernel checks it.
    cmp_ok $took, '<', 14 + $slack, '... in time';
    note sprintf 'after %.3f s', $took;
    close_hole();
    ok poll_until { served() }, 'it heals by itself';
    ok poll_until { query($pg, $asleep) == 0 }, '... and the server has ended the statement';
    all_well($threads);
};

$httpd->stop;
ok poll_until { backends($pg) == 0 }, 'no backend is left';
done_testing;
