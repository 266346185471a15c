#!/usr/bin/perl

# PgPoolTotalMax: all children together never have more connections, as the server counts them, even
# if children are replaced or die; and a child that needs a connection gets one of another child's.

use PgPoolTest;
use JSON::PP;
use List::Util qw(sum0);
use Probe;

my $pg = postgres("max_connections = 60\n");
query($pg, <<'SQL');
CREATE FUNCTION most_seen(seconds float) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    most int := 0;
    until timestamptz := clock_timestamp() + seconds * interval '1 second';
BEGIN
    WHILE clock_timestamp() < until LOOP
        PERFORM pg_stat_clear_snapshot();
        most := greatest(most, (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'capped'));
        PERFORM pg_sleep(0.002);
    END LOOP;
    RETURN most;
END $$
SQL

my $conninfo = conninfo($pg, application_name => 'capped');

sub capped {
    my ($conf, %option) = @_;
    return httpd(<<"CONF", modules => [qw(authz_core pgpool pgpool_query pgpool_probe)], children => 4, %option);
PgPoolConninfo "$conninfo"
PgPoolAcquireTimeout 20s
$conf
<Location /short>
  SetHandler pgpool-query
  PgPoolQuery "SELECT pg_sleep(0.002)"
</Location>
<Location /long>
  SetHandler pgpool-query
  PgPoolQuery "SELECT pg_sleep(0.2)"
</Location>
<Location /probe>
  SetHandler pgpool-probe
</Location>
CONF
}

# The greatest number of connections that the server sees in this time.
sub most_seen_in { my ($seconds) = @_; return query($pg, "SELECT most_seen($seconds)") }

subtest 'under load' => sub {
    my $httpd = capped("PgPoolMax 32\nPgPoolTotalMax 10", threads => 16);
    my $load = $httpd->load('/short', clients => 64, keep_alive => 1);
    my $most = most_seen_in(5);
    my $seen = $load->stop;
    is_deeply [keys %$seen], [200], 'no request fails';
    cmp_ok $most, '<=', 10, 'never more than the cap';
    $load = $httpd->load('/long', clients => 32);
    ok poll_until { most_seen_in(0.5) == 10 }, 'but as many as the cap';
    $load->stop;
    $httpd->stop;
};

subtest 'while generations change and children die' => sub {
    # MPM worker may keep a child too many after a graceful restart; then wait_complete() would
    # fail.
    my @mpm = ($ENV{PGPOOL_MPM} // '') eq 'worker' ? (mpm => 'event') : ();
    my $httpd = capped("PgPoolMax 32\nPgPoolTotalMax 10", threads => 16, @mpm);
    my $load = $httpd->load('/short', clients => 16);
    my $most = 0;
    for my $round (1 .. 4) {
        my $seen = most_seen_in(1);
        $most = $seen if $seen > $most;
        $round == 3 ? $httpd->kill_child('KILL') : $httpd->graceful;
        $httpd->wait_complete;
    }
    my $seen = most_seen_in(2);
    $most = $seen if $seen > $most;
    my $answers = $load->stop;
    cmp_ok $most, '<=', 10, 'never more than the cap';
    # Only the killed child's requests under way fail: at most one of each client.
    my $failed = 0;
    $failed += $answers->{$_} for grep { $_ != 200 } keys %$answers;
    cmp_ok $failed, '<=', 16, 'nearly no request fails' or diag explain $answers;

    # The queries take long enough that more than ten requests run at once even on a slow machine.
    my $all = $httpd->load('/long', clients => 32);
    ok poll_until { $most = most_seen_in(0.5); $most == 10 }, 'and afterwards all connections of the cap are used again'
        or diag "at most $most connections were seen at once";
    $all->stop;
    $httpd->stop;
    ok poll_until { backends($pg, 'capped') == 0 }, 'no backend is left';
};

# As reference.conf says: the server goes on with the queries of a killed child.  Until they end, it
# may have as many more connections as that child had in use.
subtest 'a killed child leaves its queries behind' => sub {
    my $httpd = capped("PgPoolMin 0\nPgPoolMax 2\nPgPoolTotalMax 2", threads => 8, children => 1);
    my $asleep = sub { query($pg, "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep($_[0])'") };
    my @left = map { $httpd->begin(probe_at('acquire', 'sql=SELECT pg_sleep(5)')) } 1 .. 2;
    ok poll_until { $asleep->(5) == 2 }, 'two queries run';
    $httpd->kill_child('KILL');
    my @next = map { $httpd->begin(probe_at('acquire', 'sql=SELECT pg_sleep(0.5)')) } 1 .. 4;
    my $most = most_seen_in(3);
    cmp_ok $most, '<=', 4, 'no more than the cap and what the killed child had';
    is_deeply [map { told($_, 'status') } finish(@next)], [(0) x 4], 'the next child serves at once';
    ok poll_until { $asleep->(5) == 0 }, 'the queries end';
    cmp_ok most_seen_in(0.5), '<=', 2, 'and the cap holds again';
    $httpd->stop;
};

# Start n requests that acquire and keep their connections until the file `free` exists.
sub held_by_one {
    my ($httpd, $n) = @_;
    return map { $httpd->begin("/probe?acquire&touch=" . $httpd->dir . "/held$_&hold=" . $httpd->dir . '/free') } 1 .. $n;
}

subtest 'idle connections of other children give way' => sub {
    my $httpd = capped("PgPoolMin 4\nPgPoolMax 4\nPgPoolTotalMax 4", threads => 16, children => 2);
    # One child, or both together, have taken all permits for PgPoolMin.
    ok poll_until { backends($pg, 'capped') == 4 }, 'all permits are taken';
    my @held = held_by_one($httpd, 4);
    ok poll_until { 4 == grep { -e } map { $httpd->dir . "/held$_" } 1 .. 4 },
        'each request gets one, in whatever child';
    Httpd::spew($httpd->dir . '/free', '');
    is_deeply [map { $_->{status} } finish(@held)], [(200) x 4], 'and all are served';
    $httpd->stop;
};

subtest 'the cap is reached' => sub {
    my $httpd = capped("PgPoolMin 0\nPgPoolMax 8\nPgPoolTotalMax 2\nPgPoolAcquireTimeout 3s", threads => 16);
    my @held = held_by_one($httpd, 2);
    ok poll_until { 2 == grep { -e } map { $httpd->dir . "/held$_" } 1 .. 2 }, 'two requests have all connections';
    my $answer = $httpd->get('/short');
    is $answer->{status}, 503, 'the next is refused';
    $httpd->wait_log(qr/PGP1011: .* all 2 connections that PgPoolTotalMax allows are taken/);
    pass '... and the log says why';
    Httpd::spew($httpd->dir . '/free', '');
    finish(@held);
    ok poll_until { $httpd->get('/short')->{status} == 200 }, 'when they are back, it is served';
    $httpd->stop;
};

subtest 'more than the server has' => sub {
    my $httpd = capped("PgPoolMax 32\nPgPoolTotalMax 100");
    $httpd->wait_log(qr/PGP1018: pool default: may ask for 100 connections .* takes only 57/);
    pass 'is warned of, with numbers';
    $httpd->stop;
};

# Each pool is below the server's capacity; together they exceed it.
subtest 'more than the server has, in several pools' => sub {
    my $hosts = join '', map { "<VirtualHost *:\${PORT}>\nServerName h$_\nPgPoolAcquireTimeout ${_}s\n</VirtualHost>\n" } 3 .. 5;
    my $httpd = capped("PgPoolMin 1\nPgPoolMax 32\nPgPoolTotalMax 20\n<PgPool other>\nPgPoolTotalMax 7\n</PgPool>\n$hosts");
    # Four servers with both pools each.
    my ($pools, $server) = $httpd->wait_log(
        qr/PGP1018: pool \S+: the (\d+) pools of (\S+) may ask for 108 connections together .* takes only 57/);
    is $pools, 8, 'is warned of, with the number of pools';
    is $server, join(':', $pg->host, $pg->port), '... and the server';
    poll_until { backends($pg, 'capped') >= 8 };
    is scalar(() = $httpd->error_log =~ /PGP1018/g), 1, '... once';
    $httpd->stop;
};

# ---- places of pools over graceful restarts

sub placed {
    my ($password, @pool) = @_;
    my $more = join '', map { "<PgPool $_>\n</PgPool>\n" } @pool;
    return <<"CONF";
PgPoolConninfo "$conninfo password=$password"
PgPoolMin 0
PgPoolMax 2
$more
<Location /pools>
  SetHandler pgpool-status
</Location>
<Location /probe>
  SetHandler pgpool-probe
</Location>
CONF
}

sub reconfigured {
    my ($httpd, $conf) = @_;
    my @old = $httpd->children;
    $httpd->conf($conf)->graceful;
    $httpd->wait_gone(@old);
    return;
}

sub page { my ($httpd) = @_; return decode_json($httpd->get('/pools?json')->{content}) }

subtest 'a password that changes with each restart' => sub {
    my $httpd = httpd(placed('p0'), modules => [qw(pgpool pgpool_probe)]);
    for my $n (1 .. 20) {
        probe($httpd, 'acquire');
        reconfigured($httpd, placed("p$n"));
    }
    is_deeply [map { $_->{acquires} } values %{ page($httpd)->{pools} }], [20], 'the pool counts on';
    unlike $httpd->error_log, qr/PGP1017/, 'and keeps its place';
    $httpd->stop;
};

subtest 'pools that come and go' => sub {
    my $httpd = httpd(placed('x'), modules => [qw(pgpool pgpool_probe)]);
    for my $n (1 .. 8) {
        reconfigured($httpd, placed('x', map { "g$n-$_" } 1 .. 8));
        probe($httpd, "acquire=g$n-$_") for 1 .. 8;
    }
    unlike $httpd->error_log, qr/PGP1017/, '64 pools, 9 at a time, have places';
    my $acquires = sub { my $pools = page($httpd)->{pools}; return { map { $_ => $pools->{$_}{acquires} } keys %$pools } };
    poll_until { sum0(values %{ $acquires->() }) == 8 };
    is_deeply $acquires->(), { default => 0, map { ("g8-$_" => 1) } 1 .. 8 },
        '... and begin to count at 0';

    reconfigured($httpd, placed('x', map { "many-$_" } 1 .. 40));
    $httpd->wait_log(qr/PGP1017: \d+ pools are new since the start and have no place/);
    is told(probe($httpd, 'acquire=many-40'), 'status'), 0, 'pools without a place work';
    my $page = page($httpd);
    is keys %{ $page->{pools} }, 41, '... are shown';
    my @unknown = grep { $_->{health} eq 'unknown' } values %{ $page->{pools} };
    cmp_ok @unknown, '>', 10, '... as unknown';
    like $unknown[0]{why}, qr/no place in shared memory/, '... with the cause';
    is $page->{health}, 'unknown', '... and so is the health of all';
    like $httpd->get('/pools')->{content}, qr{<span class="word unknown">}, '... on the page, too';
    $httpd->stop;
};

done_testing;
